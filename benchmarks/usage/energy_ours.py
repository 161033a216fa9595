"""An energy to samples with log-densities; follows README.md, "From an array"."""

import vaeflow as vf
from benchmarks.usage.checks import check_energy
from benchmarks.usage.data import energy

q = vf.fit_energy(vf.flows.RealNVP((2,)), energy)
samples = q.sample(10_000)
log_prob = q.log_prob(samples)
check_energy(samples, log_prob)
