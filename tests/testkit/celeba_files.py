"""CelebA in its official layout, small and made up: the pictures of one attribute are warm, the others cold."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from inferry_trainer.datasets.celeba import ATTRIBUTES, IDENTITIES, IMAGES, PARTITION

NAMES = (  # noqa: SIM905 - forty lines otherwise
    "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair "
    "Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones "
    "Male Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline "
    "Rosy_Cheeks Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick "
    "Wearing_Necklace Wearing_Necktie Young"
).split()


def write_celeba(folder: Path, *, parts: Sequence[int] = (24, 8, 12), attribute: str = "Male", seed: int = 0) -> Path:
    """Write the official files; returns the folder.

    Args:
        folder: made where it does not exist.
        parts: how many training, validation and test images.
        attribute: the one that decides a picture's colour; every second image has it, the others are drawn.
        seed: of pictures and attributes.
    """
    rng = np.random.default_rng(seed)
    (folder / IMAGES).mkdir(parents=True)
    rows, partition, identities = [], [], []
    for index in range(sum(parts)):
        name = f"{index + 1:06}.jpg"
        values = rng.choice([-1, 1], len(NAMES))
        values[NAMES.index(attribute)] = 1 if index % 2 else -1
        _write_picture(folder / IMAGES / name, warm=bool(index % 2), rng=rng)
        rows.append(f"{name} " + " ".join(f"{value:2d}" for value in values))
        partition.append(f"{name} {int(index >= parts[0]) + int(index >= parts[0] + parts[1])}")
        identities.append(f"{name} {index + 1}")
    write_lines(folder / ATTRIBUTES, [str(len(rows)), " ".join(NAMES) + " ", *rows])
    write_lines(folder / PARTITION, partition)
    write_lines(folder / IDENTITIES, identities)
    return folder


def write_lines(path: Path, lines: Sequence[str], *, end: str = "\n") -> None:
    """A text file of these lines, each with this end."""
    path.write_bytes("".join(line + end for line in lines).encode())


def _write_picture(path: Path, *, warm: bool, rng: np.random.Generator) -> None:
    coarse = rng.integers(0, 120, (7, 6, 3)) + np.array([110, 60, 20] if warm else [20, 60, 110])
    picture = Image.fromarray(coarse.astype(np.uint8)).resize((178, 218), Image.Resampling.BILINEAR)
    picture.save(path, quality=90)
