"""A small ILSVRC2012 of the official structure: a tar of tars, a flat tar, and a development kit whose IDs are not in
the order of the wnids; with the odd files that the real one has, and broken ones.

Every class has a colour of its own, so what a picture shows tells its class, whatever any list says.
"""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

WNIDS = ("n01440764", "n01443537", "n02012849", "n03126707", "n07583066")  # sorted; label k is WNIDS[k]
WORDS = {
    "n01440764": "tench, Tinca tinca",
    "n01443537": "goldfish, Carassius auratus",
    "n02012849": "crane",
    "n03126707": "crane",
    "n07583066": "guacamole",
}
IDS = {"n03126707": 1, "n01443537": 2, "n07583066": 3, "n01440764": 4, "n02012849": 5}
PARENTS = {"n00001740": 6, "n00002137": 7}  # synsets that have children, and no pictures
COLOURS = {"n01440764": (200, 30, 30), "n01443537": (30, 200, 30), "n02012849": (30, 30, 200),
           "n03126707": (200, 200, 30), "n07583066": (30, 200, 200)}  # fmt: skip
ODD = ("png", "cmyk", "grey", "exif")  # that can be read
BROKEN = {"truncated": "truncated", "empty": "empty"}  # how: a word of the reason


def picture(wnid: str, seed: int, kind: str = "", side: int = 40) -> bytes:
    """A JPEG of the class's colour and a little noise, or an odd file."""
    noise = np.random.default_rng(seed).integers(-20, 21, (side, side + 8, 3))
    image = Image.fromarray((np.array(COLOURS[wnid]) + noise).clip(0, 255).astype(np.uint8))
    if kind == "empty":
        return b""
    options = {"exif": b"Exif\0\0MM\0*\0\0\0\x08\xff\xff garbage"} if kind == "exif" else {}
    image = image.convert({"cmyk": "CMYK", "grey": "L"}.get(kind, "RGB"))
    content = io.BytesIO()
    image.save(content, "PNG" if kind == "png" else "JPEG", **options)
    whole = content.getvalue()
    return whole[: len(whole) * 9 // 10] if kind == "truncated" else whole


def put(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def tar_of(pictures: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, data in pictures.items():
            put(tar, name, data)
    return content.getvalue()


def training_pictures(per_class: int = 4, odd: bool = True) -> dict[str, dict[str, bytes]]:
    """wnid -> name -> bytes.  With `odd`, the first class has the odd files, and the second the broken ones too."""
    made = {}
    for k, wnid in enumerate(WNIDS):
        made[wnid] = {f"{wnid}_{i}.JPEG": picture(wnid, 100 * k + i) for i in range(per_class)}
        for i, kind in enumerate(ODD if odd and k == 0 else tuple(BROKEN) if odd and k == 1 else ()):
            made[wnid][f"{wnid}_{1000 + i}.JPEG"] = picture(wnid, 100 * k + 50 + i, kind)
    return made


def validation_pictures(count: int = 10) -> list[tuple[str, bytes]]:
    """(wnid, bytes) of each, in the order of their numbers from 1; mixed, as the real ones are."""
    wnids = [WNIDS[k] for k in np.random.default_rng(5).permutation(np.arange(count) % len(WNIDS))]
    return [(wnid, picture(wnid, 1000 + i)) for i, wnid in enumerate(wnids)]


def val_name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def meta_mat() -> bytes:
    """meta.mat as the development kit has it; needs scipy."""
    from scipy.io import savemat

    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O"),
             ("children", "O"), ("wordnet_height", "O"), ("num_train_images", "O")]  # fmt: skip
    rows = [(number, wnid, WORDS.get(wnid, "entity, thing"), "a gloss", 0.0 if wnid in IDS else 2.0,
             np.array([1.0, 2.0]), 0.0, 1300.0) for wnid, number in {**IDS, **PARENTS}.items()]  # fmt: skip
    synsets = np.empty((len(rows), 1), kinds)
    synsets[:, 0] = rows
    content = io.BytesIO()
    savemat(content, {"synsets": synsets}, do_compression=True)
    return content.getvalue()


def devkit(truth: list[int], meta: bytes | None = None) -> dict[str, bytes]:
    """The files of a development kit, by their paths in its tar."""
    return {
        "ILSVRC2012_devkit_t12/readme.txt": b"read me",
        "ILSVRC2012_devkit_t12/data/meta.mat": meta_mat() if meta is None else meta,
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": b"".join(b"%d\n" % n for n in truth),
    }


def make(folder: Path, per_class: int = 4, validation: int = 10, odd: bool = True) -> Path:
    """The three official files in `folder`, which is made; needs scipy."""
    folder.mkdir(parents=True, exist_ok=True)
    # The real tar is not sorted either; nor are those in it.
    train = {
        f"{wnid}.tar": tar_of(dict(reversed(of.items()))) for wnid, of in training_pictures(per_class, odd).items()
    }
    (folder / "ILSVRC2012_img_train.tar").write_bytes(tar_of(dict(reversed(train.items()))))
    val = validation_pictures(validation)
    named = {val_name(k + 1): data for k, (_, data) in enumerate(val)}
    (folder / "ILSVRC2012_img_val.tar").write_bytes(tar_of(dict(reversed(named.items()))))
    with tarfile.open(folder / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as tar:
        for name, content in devkit([IDS[wnid] for wnid, _ in val]).items():
            put(tar, name, content)
    return folder
