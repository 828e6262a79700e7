"""Where the public data sets are published, and the digests by which a copy is known to be theirs.

Sizes and SHA-256 of the downloads: `url_checksums/{mnist,fashion_mnist,cifar10}.txt` of tensorflow/datasets.
MD5 of the extracted CIFAR-10 files: two independent public loaders, one in Go and one in CMake, list the same; their
SHA-256 is published nowhere that we know of. They only decide what a copy is called. Digests of contents, as
`images.fingerprint` forms them: computed here, MNIST's from files whose uncompressed SHA-256 begin with ba891046,
65a50cbb, 0fa7898d and ff7bcfd4, which are the original ones.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RemoteFile:
    """A file to download: `path` is relative to the data root; the `urls` all serve the same bytes.

    Where nobody publishes a digest and no copy was at hand to take one from, `sha256` is empty and `size` 0;
    then `begins` is all that a download is checked against, and whoever fetches it is told so.
    """

    path: str
    urls: tuple[str, ...]
    size: int
    sha256: str
    begins: bytes = b""

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]


def _four(folder: str, bases: tuple[str, ...], digests: dict[str, tuple[int, str]]) -> tuple[RemoteFile, ...]:
    return tuple(
        RemoteFile(f"{folder}/{name}", tuple(base + name for base in bases), size, sha256)
        for name, (size, sha256) in digests.items()
    )


SOURCES: dict[str, tuple[RemoteFile, ...]] = {
    "mnist": _four(
        "MNIST/raw",
        ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
        {
            "train-images-idx3-ubyte.gz": (
                9912422,
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            "train-labels-idx1-ubyte.gz": (
                28881,
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
            "t10k-images-idx3-ubyte.gz": (
                1648877,
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            "t10k-labels-idx1-ubyte.gz": (
                4542,
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        },
    ),
    "fashion_mnist": _four(
        "FashionMNIST/raw",
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/b2617bb6d3ffa2e429640350f613e3291e10b141/data/fashion/",
        ),
        {
            "train-images-idx3-ubyte.gz": (
                26421880,
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            ),
            "train-labels-idx1-ubyte.gz": (
                29515,
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            ),
            "t10k-images-idx3-ubyte.gz": (
                4422102,
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            ),
            "t10k-labels-idx1-ubyte.gz": (
                5148,
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
        },
    ),
    "cifar10": (
        RemoteFile(
            "cifar-10-binary.tar.gz",
            ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
            170052171,
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
    ),
}

HDF5 = b"\x89HDF\r\n\x1a\n"


def _gwosc(event: str, version: str, gps_start: int, digests: dict[str, tuple[int, str]]) -> tuple[RemoteFile, ...]:
    """The 32 s at 4096 Hz around an event, a file per site (H, L)."""
    return tuple(
        RemoteFile(
            f"gwosc/{site}-{site}1_LOSC_4_{version}-{gps_start}-32.hdf5",
            (f"https://gwosc.org/s/events/{event}/{site}-{site}1_LOSC_4_{version}-{gps_start}-32.hdf5",),
            size,
            sha256,
            HDF5,
        )
        for site, (size, sha256) in digests.items()
    )


# Single files, taken as they are: what they are, and where from. The digests are of the file in that commit
# (topography) and of copies fetched earlier (GW150914).
FILES: dict[str, tuple[str, tuple[RemoteFile, ...]]] = {
    "topography": (
        "the Earth's topography, spherical harmonics to degree 300 (SHTOOLS)",
        (
            RemoteFile(
                "topography/srtmp300.msl",
                (
                    "https://raw.githubusercontent.com/SHTOOLS/SHTOOLS/19eb6a92368b7601be9495f561b01bc2b89e8db5/"
                    "examples/ExampleDataFiles/srtmp300.msl",
                ),
                2243364,
                "e67771197c1f8b08087e6023947e0029a8653034c7950524c7f6b55a50016385",
            ),
        ),
    ),
    "gw150914": (
        "strain of two detectors around GW150914 (GWOSC)",
        _gwosc(
            "GW150914",
            "V2",
            1126259446,
            {
                "H": (1040592, "fa170ebc577652bfeb5c4b9d2a2d713eef8a4b2996b198b749692446fa7a163c"),
                "L": (1007420, "3fccf5c091b3542ff348e36da217afa3220ced2137a53a2838f5a3d41d622e72"),
            },
        ),
    ),
    "gw170104": (
        "strain of two detectors around GW170104 (GWOSC)",
        _gwosc("GW170104", "V1", 1167559920, {"H": (0, ""), "L": (0, "")}),
    ),
}

CIFAR10_MD5 = {
    "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
    "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
}

CONTENTS = {
    "11de40ec28a7c150195b86fd3a818037e73f1e8d04ab1621d02836dbdf8a2d54": "MNIST, the original images and labels",
    "698de7705365b0328ed055655d221bd9934e8d93a1984e4f841d09fa92bed49f": "CIFAR-10 (JPEG copy)",
}
