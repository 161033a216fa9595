"""Images to reconstructions and samples of a VAE.

Follows zuko's tutorial "Variational autoencoders", whose classes of the two models and of the
bound are written in place, and whose networks are zuko's own; its prior is a flow.
"""

import torch
import zuko
from torch.distributions import Bernoulli, Independent
from torch.utils.data import DataLoader

from benchmarks.usage.checks import check_vae
from benchmarks.usage.data import images, test_images

encoder = zuko.nn.MLP(784, 32, (512,))
decoder = zuko.nn.MLP(16, 784, (512,))
prior = zuko.flows.MAF(16, transforms=3, hidden_features=(256, 256))
elbo = torch.nn.ModuleList([encoder, decoder, prior])
optimizer = torch.optim.Adam(elbo.parameters(), lr=1e-3)
data = torch.tensor(images / 255).float().flatten(1)
for _ in range(60):
    for x in DataLoader(data, batch_size=64, shuffle=True):
        mean, log_scale = encoder(x).chunk(2, dim=-1)
        q = zuko.distributions.DiagNormal(mean, log_scale.exp())
        z = q.rsample()
        likelihood = Independent(Bernoulli(logits=decoder(z)), 1)
        loss = (q.log_prob(z) - prior().log_prob(z) - likelihood.log_prob(x.round())).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
codes = encoder(torch.tensor(test_images / 255).float().flatten(1))[:, :16]
reconstructions = decoder(codes).sigmoid()
samples = decoder(prior().sample((16,))).sigmoid()
check_vae(reconstructions, samples)
