"""Images to reconstructions and samples of a VAE.

Follows pythae's README, "Launching a model training" and "Using the Samplers", with its default
networks; `reconstruct` is the model's own.
"""

import torch
from pythae.models import VAE, VAEConfig
from pythae.pipelines import TrainingPipeline
from pythae.samplers import NormalSampler
from pythae.trainers import BaseTrainerConfig

from benchmarks.usage.checks import check_vae
from benchmarks.usage.data import images, test_images

config = BaseTrainerConfig(output_dir="my_model", learning_rate=1e-3, num_epochs=60)
model = VAE(VAEConfig(input_dim=(1, 28, 28), latent_dim=16, reconstruction_loss="bce"))
pipeline = TrainingPipeline(model=model, training_config=config)
pipeline(images.reshape(-1, 1, 28, 28) / 255)
reconstructions = model.reconstruct(torch.tensor(test_images / 255).float())
samples = NormalSampler(model).sample(16)
check_vae(reconstructions, samples)
