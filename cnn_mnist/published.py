"""Published numbers to compare with: the lab report's, and other people's accuracies and times on MNIST."""

from typing import Any, NamedTuple

LAB_REPORT = {  # with batch normalisation or without; one run each
    False: {"accuracy": 0.9894, "fit_seconds": 786},
    True: {"accuracy": 0.9918, "fit_seconds": 1391},
}
LAB_RECIPE: dict[str, Any] = {  # how the lab report trained
    "dataset": "mnist",
    "network": "CNN",
    "epochs": 6,
    "optimizer": "Adam",
    "lr": 1e-3,
    "schedule": None,
    "batch_size": 100,
    "kernel_size": 3,
    "val_size": 0,
    "num_train": 60_000,
    "distortion": 0.0,
    "elastic": 0.0,
    "stroke": 0.0,
    "label_smoothing": 0.0,
    "weight_decay": 0.0,
    "epsilon": 0.0,
    "precision": "32-true",
    "averaged_weights": False,
}


class Robust(NamedTuple):
    """A network's accuracy under an attack on all test images, with no pixel changed by more than `EPSILON`."""

    attack: str
    source: str
    clean: float
    robust: float


EPSILON = 0.3
NUM_IMAGES = 10_000
ROBUST = (  # a stronger attack leaves less: compare numbers under the same attack only
    Robust("FGSM", "Madry et al. 2018", 0.9853, 0.9636),
    Robust("PGD-100 x 50", "Madry et al. 2018", 0.9853, 0.8962),
    Robust("PGD-50 x 10", "Wong et al. 2020", 0.9850, 0.8877),
    Robust("AutoAttack", "Madry et al. 2018", 0.9853, 0.8850),
    Robust("AutoAttack", "Wong et al. 2020", 0.9850, 0.8293),
    Robust("AutoAttack", "TRADES (Zhang et al. 2019)", 0.9948, 0.9281),
    Robust("AutoAttack", "Gowal et al. 2020", 0.9926, 0.9634),
)


class Accuracy(NamedTuple):
    """Another network's accuracy on all test images, or that of a committee of them."""

    source: str
    what: str
    accuracy: float
    remark: str = ""


ACCURACIES = (
    Accuracy("Simard et al. 2003", "one network", 0.9960),
    Accuracy("Ciresan et al. 2011", "one network", 0.9965),
    Accuracy("Ciresan et al. 2012", "committee of 35", 0.9977),
    Accuracy("Wan et al. 2013", "committee of 5", 0.9979),
    Accuracy("An et al. 2020", "committee of 3", 0.9987, "each network's epoch was chosen on the test set"),
)


class Speed(NamedTuple):
    """The time in which others train a network of their own to an accuracy."""

    source: str
    accuracy: float
    seconds: float
    conditions: str

    @property
    def words(self) -> str:
        """The time with its conditions."""
        return f"{self.seconds:g} ({self.conditions})"


SPEEDS = (
    Speed("tinygrad's tutorial", 0.98, 5, "on a GPU"),
    Speed("train_mnist_fast (Oikarinen 2021)", 0.9904, 0.76, "GTX 1660 Ti, loading the data excluded"),
)


def beside(
    attack: str, norm: str, dataset: str, *, steps: int, restarts: int, num_images: int, **other: Any
) -> list[Robust]:
    """The published numbers of the same attack, with as many steps and restarts, on as many images."""
    if (norm, dataset, num_images) != ("linf", "mnist", NUM_IMAGES):
        return []
    same = {"fgsm": "FGSM", "auto": "AutoAttack", "pgd": f"PGD-{steps} x {restarts}"}.get(attack)
    return [one for one in ROBUST if one.attack == same]
