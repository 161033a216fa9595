"""Images to reconstructions and samples of a VAE; follows README.md, "Latent-variable models"."""

import vaeflow as vf
from benchmarks.usage.checks import check_vae
from benchmarks.usage.data import images, test_images

fitted = vf.fit(vf.models.dense_vae((28, 28, 1), num_latents=16), images)
reconstructions = fitted.reconstruct(test_images)
samples = fitted.sample(16)
check_vae(reconstructions, samples)
