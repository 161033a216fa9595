"""An array to a trained spline flow and back from a file; follows README.md, "From an array"."""

import vaeflow as vf
from benchmarks.usage.checks import check_fit
from benchmarks.usage.data import rows, test_rows

fitted = vf.fit(vf.flows.NeuralSplineFlow((6,)), rows)
log_prob = fitted.log_prob(test_rows)
samples = fitted.sample(1000)
fitted.save("flow.safetensors")
again = vf.load_fitted("flow.safetensors").log_prob(test_rows)
check_fit(log_prob, samples, again)
