# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From handwritten digits to a network that is hard to fool
#
# You will train a small convolutional network, look inside it, fool it, and train one that withstands small changes.
# It takes a few minutes of computing on two processor cores. Every part ends with a question that has more than one
# good answer; [answers.md](answers.md) has ours. Answer first, then read.
#
# The cells have no output yet: run them from top to bottom, in JupyterLab (`pip install jupyterlab`, then
# `jupyter lab docs/walkthrough/walkthrough.ipynb`) or on Colab. Where the project is not installed, install it first:
# `%pip install git+` and the address of the repository.

# %%
import matplotlib.pyplot as plt
import pytorch_lightning as pl
import torch
import torch.nn.functional as F

import cnn_mnist
from cnn_mnist import attacks
from cnn_mnist.analysis.certificate import certificate
from cnn_mnist.analysis.occlusion import mean_drop, occlusion_map
from cnn_mnist.data.datamodule import DataModule
from cnn_mnist.training.module import Classifier


def show(images, titles=(), columns=10, **options):
    """Draw images (N, 1, H, W) or (N, H, W) in a grid."""
    images = torch.as_tensor(images).detach().reshape(len(images), *images.shape[-2:])
    rows = -(-len(images) // columns)
    axes = plt.subplots(rows, columns, figsize=(columns, 1.25 * rows), squeeze=False)[1]
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, title in zip(axes.flat, images, [*titles, *[""] * len(images)]):
        axis.imshow(image, **{"cmap": "gray"} | options)
        axis.set_title(title, fontsize=9)
    plt.show()


# %% [markdown]
# ## 1. The data
#
# MNIST: 60,000 digits to learn from and 10,000 to test on, grey values from 0 (paper) to 1 (ink).

# %%
images, labels = cnn_mnist.load_images("mnist", split="test")
print(images.shape, images.dtype, labels.bincount())
show(images[:20], labels[:20].tolist())

# %% [markdown]
# How far apart are digits? The L2 distance of every one of 1,000 test images to its nearest neighbour of the same class
# and of another class. (Evenly spaced over the test set: its first half is easier than its second.)

# %%
x, y = images[::10], labels[::10]
distance = torch.cdist(x.flatten(1), x.flatten(1)).fill_diagonal_(torch.inf)
same = y[:, None] == y
to_same = distance.masked_fill(~same, torch.inf).amin(1)
to_other = distance.masked_fill(same, torch.inf).amin(1)
print(f"median distance to the same class {to_same.median():.1f}, to another class {to_other.median():.1f}")
print(f"nearest neighbour has the same class: {(to_same < to_other).float().mean():.1%}")

# %% [markdown]
# **Question 1.** To name the class of the nearest of a thousand images is a simple classifier. What can a network learn
# that it cannot? And does the distance to the nearest image of another class say how large a change must be before a
# person sees another digit?

# %% [markdown]
# ## 2. A network
#
# Two convolutions with 32 filters of 3x3, each followed by a max-pool, and two linear layers: 799,078 parameters, most
# of them in the first linear layer. One epoch with a learning rate that rises and falls is enough for about 99 %.


# %%
def train_network(epochs=1, batches=1.0, seed=0, **options):
    """A network trained on MNIST, in eval mode; the seed draws its weights and the order of the images."""
    pl.seed_everything(seed, verbose=False)
    model = Classifier(lr=3e-3, schedule="one_cycle", **options)
    trainer = pl.Trainer(
        max_epochs=epochs,
        limit_train_batches=batches,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(model, DataModule(seed=seed))
    return model.network.eval()


network = train_network()
with torch.no_grad():
    predicted = network(images).argmax(1)
print(f"test accuracy {(predicted == labels).float().mean():.2%}")
wrong = (predicted != labels).nonzero()[:10, 0]
show(images[wrong], [f"{a}, label {b}" for a, b in zip(predicted[wrong].tolist(), labels[wrong].tolist())])

# %% [markdown]
# **Question 2.** Which of these mistakes would you have made? How certain is the accuracy: with another seed, and with
# another 10,000 test images? (Train with a few seeds, and take the standard deviation.)

# %% [markdown]
# ## 3. Inside
#
# The filters of the first layer, and the activations of both convolutions for one digit, after the ReLU:


# %%
def show_filters(model):
    """The 32 filters of the first layer: blue increases the output, red decreases it."""
    largest = model.conv1.weight.abs().max().item()
    show(model.conv1.weight, columns=16, cmap="RdBu", vmin=-largest, vmax=largest)


show_filters(network)
with torch.no_grad():
    features = network.features(images[:1])
for maps in (features.conv1[0], features.conv2[0]):
    show(maps, columns=16, vmin=0, vmax=maps.max().item())

# %% [markdown]
# Occlusion: a grey square is moved over the digit, and the probability of the true class is noted at each place. Bright
# in the map is where covering a pixel lowers the probability most.

# %%
chosen = torch.tensor([0, 1, 2, 3, 4, 8])
drop = mean_drop(occlusion_map(network, images[chosen], labels[chosen], window=8, stride=1, fill=0.5))
show(images[chosen], labels[chosen].tolist(), columns=6)
show(drop, columns=6, cmap="viridis")

# %% [markdown]
# **Question 3.** Does a bright place mean that the network recognises the digit by what is there? What else could lower
# the probability when a grey square is put there? And does a dark place mean that the network does not use it?

# %% [markdown]
# ## 4. Fooling it
#
# *From noise.* Start from grey noise and increase one class's logit until its probability is 99.9 %:

# %%
fooling = attacks.non_targeted(network, torch.arange(10), steps=200, step_size=0.5)
show(fooling.images, vmin=0, vmax=1, titles=[f"{k}: {p:.1%}" for k, p in enumerate(fooling.confidence.tolist())])

# %% [markdown]
# *Towards a class.* Change a digit as little as possible until it is classified as the next digit, a 9 as 0. Below it
# stands what was added.

# %%
digits = torch.stack([(labels == k).nonzero()[1, 0] for k in range(10)])
targets = (labels[digits] + 1) % 10
near = attacks.targeted(network, images[digits], targets, beta=6.5, steps=200, step_size=0.1)
show(near.images, [f"seen as {k}" for k in near.predicted.tolist()])
show(near.perturbation, cmap="RdBu", vmin=-0.5, vmax=0.5)

# %% [markdown]
# *Within a budget.* No pixel may change by more than epsilon; projected gradient descent (PGD) looks for the worst
# image there. Ten of them, and the accuracy of 200 images for each epsilon:

# %%
x, y = images[::50], labels[::50]


def under_pgd(model, epsilon):
    """PGD's images, and the accuracy that they leave."""
    found = attacks.pgd(model, x, y, epsilon=epsilon, step_size=epsilon / 8, steps=20)
    return found, 1 - found.success.float().mean().item()


found, accuracy = under_pgd(network, 0.2)
show(found.images[:10], vmin=0, vmax=1, titles=[f"seen as {k}" for k in found.predicted.tolist()])
epsilons = [0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3]
undefended = [under_pgd(network, epsilon)[1] for epsilon in epsilons]
plt.plot(epsilons, undefended, marker="o")
plt.xlabel("largest change of a pixel")
plt.ylabel("accuracy")
plt.show()

# %% [markdown]
# *A control.* Would any change of this size fool the network? Random ones:

# %%
with torch.no_grad():
    for epsilon in (0.1, 0.2, 0.3):
        random = (x + epsilon * torch.randn_like(x).sign()).clamp(0, 1)
        print(f"random changes of {epsilon}: {(network(random).argmax(1) == y).float().mean():.1%}")

# %% [markdown]
# **Question 4.** You can still read these digits and the network cannot, while random changes of the same size do much
# less. What does that say about the images that the network gets wrong? Are they rare?

# %% [markdown]
# ## 5. Can you trust an attack that fails?
#
# A trick that seems to defend: multiply the logits by 1,000. Nothing changes in what the network predicts.


# %%
class Scaled(torch.nn.Module):
    """A network with larger logits."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return 1000 * self.network(x)


def one_step(model, x, y, epsilon):
    """The fast gradient sign method as it is usually written: one step along the gradient of the cross-entropy."""
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), y), x)
    return (x + epsilon * gradient.sign()).clamp(0, 1).detach()


for name, model in (("as it is", network), ("logits x 1000", Scaled(network).eval())):
    attacked = one_step(model, x, y, 0.2)
    with torch.no_grad():
        accuracy = (model(attacked).argmax(1) == y).float().mean()
    auto = attacks.auto(model, x, y, epsilon=0.2)
    print(f"{name}: {accuracy:.1%} under one step, {1 - auto.success.float().mean():.1%} under AutoAttack")

# %% [markdown]
# **Question 5.** Why does the single step fail on the scaled network? If somebody shows you a defence, what would you
# ask to see before you believe it?

# %% [markdown]
# ## 6. Training against it
#
# Adversarial training: replace every training image by the worst one that a few steps find near it. This run takes a
# small epsilon and part of the data, to save time; `python train.py experiment=robust` is the whole recipe.

# %%
robust = train_network(epochs=2, batches=250, epsilon=0.15, attack_steps=3, warmup_epochs=1)
with torch.no_grad():
    print(f"test accuracy {(robust(images).argmax(1) == labels).float().mean():.2%}")
defended = [under_pgd(robust, epsilon)[1] for epsilon in epsilons]
plt.plot(epsilons, undefended, marker="o", label="ordinary training")
plt.plot(epsilons, defended, marker="o", label="adversarial training")
plt.xlabel("largest change of a pixel")
plt.ylabel("accuracy")
plt.legend()
plt.show()

# %% [markdown]
# How large must a change be to fool this network? The same attack as in part 4, on the digits on which it succeeds with
# both networks, and the new filters. The last number is the largest weight's share of a filter: near 1 the filter looks
# at a single pixel.

# %%
far = attacks.targeted(robust, images[digits], targets, beta=6.5, steps=200, step_size=0.1)
show(far.images, [f"seen as {k}" for k in far.predicted.tolist()])
both = near.success & far.success
before, now = (one.perturbation[both].square().mean() for one in (near, far))
print(f"mean squared change {before:.4f} before, {now:.4f} now")
show_filters(robust)
for name, model in (("ordinary training", network), ("adversarial training", robust)):
    sizes = model.conv1.weight.abs().flatten(1)
    print(f"{name}: largest share of a weight, median of the filters {(sizes.amax(1) / sizes.sum(1)).median():.2f}")

# %% [markdown]
# **Question 6.** How have the filters of the first layer changed, and how could that help? What did robustness cost?

# %% [markdown]
# ## 7. Proof
#
# An attack can only show that a network fails. Bounds on the logits, over all changes within epsilon at once, can prove
# that it does not:

# %%
for name, model in (("ordinary training", network), ("adversarial training", robust)):
    proven = certificate(model, x, y, epsilon=0.01).is_proven.float().mean()
    print(f"{name}, within 0.01: {proven:.1%} proven, {under_pgd(model, 0.01)[1]:.1%} under PGD")

# %% [markdown]
# **Question 7.** The accuracy under the best possible attack lies between the two numbers. Which of them is nearer to
# it, and how could you find out? (`python train.py experiment=certified` trains for the proof.)
