"""Data: pictures from folders, archives and packed stores, arrays, idx files; preparation, augmentation, the loader.

The order of use is that of the modules: folder -> prepare (by decode) -> augment or transforms -> loader; idx reads
MNIST.  The loader takes data of any kind (datasets) in any order (sampling), and makes batches of them (collate).
What else pictures may come from, archives and ILSVRC's official files, is in sources; words is what people call the
classes.  packing writes what a source has to a store, once, and opening takes whatever there is.
base/files.py opens the files.  Nothing here knows tensors: batches are NumPy arrays.  For a card, a loader hands over
the pictures as bytes, and what is to be made of them, to the op `prepare` of ops/.  The synthetic set is in
minigrad.data.demo_set.
"""

from typing import TYPE_CHECKING

from ..base.spellings import of_module
from .augment import (
    CenterView,
    TenViews,
    TrainViews,
    Views,
    Window,
    center_crop,
    center_window,
    channels_first,
    cut,
    pca_noise,
    random_crop_flip,
    ten_views,
)
from .batches import Batch, PictureBatch
from .collate import default_collate
from .datasets import ArrayDataset, CachedImages, Dataset, ImageArray, Subset, random_split
from .folder import ImageFolder
from .idx import Mnist, load_mnist, read_idx
from .loader import Loader
from .opening import NamedImages, open_images
from .packing import pack
from .prepare import (
    IMAGENET_MEAN_RGB,
    IMAGENET_PCA,
    ImageSource,
    ImageStats,
    Report,
    RgbPCA,
    UnreadableImageError,
    compute_stats,
    prepare_bytes,
    prepare_image,
)
from .sampling import Sampler, WeightedRandomSampler, class_balanced
from .shards import PackingError
from .sources import Source, SourceImages, find_source
from .store import PackedImages
from .store_check import check_store
from .transforms import (
    ColorJitter,
    Compose,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
)

if not TYPE_CHECKING:  # which is to know what there is not
    __getattr__ = of_module("minigrad.data")

__all__ = [
    "IMAGENET_MEAN_RGB",
    "IMAGENET_PCA",
    "ArrayDataset",
    "Batch",
    "CachedImages",
    "CenterView",
    "ColorJitter",
    "Compose",
    "Dataset",
    "ImageArray",
    "ImageFolder",
    "ImageSource",
    "ImageStats",
    "Loader",
    "Mnist",
    "NamedImages",
    "Normalize",
    "PackedImages",
    "PackingError",
    "PictureBatch",
    "RandomCrop",
    "RandomHorizontalFlip",
    "Report",
    "RgbPCA",
    "Sampler",
    "Source",
    "SourceImages",
    "Subset",
    "TenViews",
    "TrainViews",
    "UnreadableImageError",
    "Views",
    "WeightedRandomSampler",
    "Window",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
    "center_crop",
    "center_window",
    "channels_first",
    "check_store",
    "class_balanced",
    "compute_stats",
    "cut",
    "default_collate",
    "find_source",
    "load_mnist",
    "open_images",
    "pack",
    "pca_noise",
    "prepare_bytes",
    "prepare_image",
    "random_crop_flip",
    "random_split",
    "read_idx",
    "ten_views",
]
