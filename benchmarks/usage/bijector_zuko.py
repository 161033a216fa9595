"""A transformation of one's own, with learned parameters, at the end of a flow.

Follows zuko's tutorial "Learn the basics", "Custom architecture", for the flow, and the classes of
`zuko.transforms` for the transformation, which is from data to noise, as in zuko's flows.
"""

import torch
import zuko
from torch.distributions import Transform, constraints
from torch.utils.data import DataLoader

from benchmarks.usage.checks import check_bijector
from benchmarks.usage.data import skewed, test_skewed


class ArcsinhSinh(Transform):
    domain = constraints.real
    codomain = constraints.real
    bijective = True

    def __init__(self, skew, log_tail):
        super().__init__()
        self.skew, self.log_tail = skew, log_tail

    def _call(self, y):
        return torch.sinh(torch.exp(-self.log_tail) * torch.arcsinh(y) - self.skew)

    def _inverse(self, x):
        return torch.sinh(torch.exp(self.log_tail) * (torch.arcsinh(x) + self.skew))

    def log_abs_det_jacobian(self, y, x):
        return torch.log(torch.sqrt(1 + x**2) / torch.sqrt(1 + y**2)) - self.log_tail


flow = zuko.flows.MAF(3, transforms=3, hidden_features=(64, 64))
own = zuko.flows.UnconditionalTransform(ArcsinhSinh, torch.zeros(3), torch.zeros(3))
flow = zuko.flows.Flow([own, *flow.transform.transforms], flow.base)
optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
loader = DataLoader(torch.from_numpy(skewed), batch_size=64, shuffle=True)
for _ in range(64):
    for x in loader:
        loss = -flow().log_prob(x).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
log_prob = flow().log_prob(torch.from_numpy(test_skewed))
samples = flow().sample((1000,))
check_bijector(log_prob, samples)
