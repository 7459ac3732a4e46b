"""Reading images: folders, packed stores and idx files, preparation to 256 x 256, augmentation, and the batch loader.

The order of use is that of the modules: folder -> prepare (by decode) -> augment -> loader; idx reads MNIST.  What else
pictures may come from, archives and ILSVRC's official files, is in sources; words is what people call the classes.
packing writes what a source has to a store, once, and opening takes whatever there is.
base/files.py opens the files.  Nothing here knows tensors: batches are NumPy arrays.  For a card, a loader hands over
the pictures as bytes, and what is to be made of them, to the op `prepare` of ops/.  The synthetic set is in
minigrad.data.demo_set.
"""

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
from .folder import ImageFolder
from .idx import Mnist, load_mnist, read_idx
from .loader import Batch, CachedImages, ImageArray, Loader, PictureBatch
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
from .sources import Source, SourceImages, find_source
from .store import PackedImages
from .store_check import check_store

__all__ = [
    "IMAGENET_MEAN_RGB",
    "IMAGENET_PCA",
    "Batch",
    "CachedImages",
    "CenterView",
    "ImageArray",
    "ImageFolder",
    "ImageSource",
    "ImageStats",
    "Loader",
    "Mnist",
    "NamedImages",
    "PackedImages",
    "PictureBatch",
    "Report",
    "RgbPCA",
    "Source",
    "SourceImages",
    "TenViews",
    "TrainViews",
    "UnreadableImageError",
    "Views",
    "Window",
    "center_crop",
    "center_window",
    "channels_first",
    "check_store",
    "compute_stats",
    "cut",
    "find_source",
    "load_mnist",
    "open_images",
    "pack",
    "pca_noise",
    "prepare_bytes",
    "prepare_image",
    "random_crop_flip",
    "read_idx",
    "ten_views",
]
