"""What pretrained files exist: where they come from, how they are pinned, and what is inside."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from amfast.errors import UsageError

Kind = Literal["generator", "classifier", "metric"]


@dataclass(frozen=True)
class RemoteFile:
    """One file to download, from the first of ``sources`` that gives it."""

    name: str
    sources: tuple[str, ...]
    #: In bytes; None where nobody publishes it. Shown, never relied upon.
    size: int | None = None
    #: In hex: whole, or its first digits where no more is published; None means that the first
    #: download is recorded and later ones are held to it.
    sha256: str | None = None


@dataclass(frozen=True)
class Entry:
    """A model's weights. The first of ``files`` holds them, a second one is its ``config.json``."""

    name: str
    kind: Kind
    files: tuple[RemoteFile, ...]
    licence: str
    citation: str
    #: The weights within a downloaded zip.
    member: str | None = None
    norm_eps: float | None = None
    spectral_eps: float | None = None
    #: What ``config.json`` has to say of the generator's images.
    resolution: int | None = None
    #: The checkpoint names classes beside its tensors, such as an optimiser's; see ``inert``.
    tensors_alone: bool = False

    @property
    def size(self) -> int | None:
        """Bytes to download, as far as they are published."""
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(size for size in sizes if size is not None)


_BIGGAN = (
    "Brock, Donahue, Simonyan: Large scale GAN training for high fidelity natural image synthesis. "
    "ICLR 2019"
)
_PLACES = (
    "Zhou, Lapedriza, Khosla, Oliva, Torralba: Places: a 10 million image database for scene "
    "recognition. TPAMI 2017"
)
_DEEP = "https://s3.amazonaws.com/models.huggingface.co/biggan/biggan-deep"
_DEEP_MIRROR = {128: "https://huggingface.co/osanseviero/BigGAN-deep-128/resolve/main"}
_ROBUST = "https://huggingface.co/madrylab/robust-imagenet-models/resolve/main"
_FID = "inception-2015-12-05-6726825d.pth"


def _drive(file_id: str) -> str:
    """Google Drive's direct download, past the page that asks about large files."""
    return f"https://drive.usercontent.google.com/download?id={file_id}&export=download&confirm=t"


def _deep(resolution: int) -> Entry:
    def file(name: str) -> RemoteFile:
        mirror = _DEEP_MIRROR.get(resolution)
        sources = [f"{_DEEP}-{resolution}-{name}", *([f"{mirror}/{name}"] if mirror else [])]
        return RemoteFile(name, tuple(sources))

    return Entry(
        f"biggan-deep-{resolution}",
        "generator",
        (file("pytorch_model.bin"), file("config.json")),
        licence="MIT",
        citation=_BIGGAN,
        norm_eps=1e-4,
        resolution=resolution,
    )


def _torchvision(
    name: str, file: str, size: int, sha256: str, citation: str, kind: Kind = "classifier"
) -> Entry:
    source = f"https://download.pytorch.org/models/{file}"
    remote = RemoteFile(file, (source,), size, sha256)
    return Entry(name, kind, (remote,), licence="BSD-3-Clause", citation=citation)


def _places(arch: str) -> Entry:
    file = f"{arch}_places365.pth.tar"
    return Entry(
        f"{arch}-places365",
        "classifier",
        (RemoteFile(file, (f"http://places2.csail.mit.edu/models_places365/{file}",)),),
        licence="CC BY",
        citation=_PLACES,
        tensors_alone=True,
    )


_ENTRIES = (
    Entry(
        "biggan-128",
        "generator",
        (RemoteFile("biggan_128.zip", (_drive("1nAle7FCVFZdix2--ks0r5JBkFnKw8ctW"),)),),
        licence="MIT",
        citation=_BIGGAN,
        member="138k/G_ema.pth",
        norm_eps=1e-5,
        spectral_eps=1e-6,
    ),
    Entry(
        "biggan-256",
        "generator",
        (RemoteFile("biggan_256_weights.pth", (_drive("1FEAXaUjRcV8mb0sHIwuS2EFyAcAITDTw"),)),),
        licence="not stated by its publisher",
        citation=_BIGGAN,
        norm_eps=1e-4,
        spectral_eps=1e-4,
    ),
    _deep(128),
    _deep(256),
    _deep(512),
    _torchvision(
        "alexnet",
        "alexnet-owt-7be5be79.pth",
        244408911,
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        "Krizhevsky: One weird trick for parallelizing convolutional neural networks. 2014",
    ),
    _torchvision(
        "resnet50",
        "resnet50-0676ba61.pth",
        102530333,
        "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
        "He, Zhang, Ren, Sun: Deep residual learning for image recognition. CVPR 2016",
    ),
    _torchvision(
        "inception_v3",
        "inception_v3_google-0cc3c7bd.pth",
        round(103.903 * 2**20),  # torchvision publishes it in MiB
        "0cc3c7bd",
        "Szegedy, Vanhoucke, Ioffe, Shlens, Wojna: Rethinking the Inception architecture for "
        "computer vision. CVPR 2016",
    ),
    Entry(
        "resnet50-robust",
        "classifier",
        (RemoteFile("resnet50_l2_eps3.ckpt", (f"{_ROBUST}/resnet50_l2_eps3.ckpt",)),),
        licence="MIT",
        citation="Salman, Ilyas, Engstrom, Kapoor, Madry: Do adversarially robust ImageNet models "
        "transfer better? NeurIPS 2020",
        tensors_alone=True,
    ),
    _places("resnet18"),
    _places("alexnet"),
    Entry(
        "fid-inception",
        "metric",
        (
            RemoteFile(
                f"pt_{_FID}",
                (
                    f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_{_FID}",
                    f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-{_FID}",
                ),
                95628359,
                "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
            ),
        ),
        licence="Apache-2.0",
        citation="Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter: GANs trained by a two "
        "time-scale update rule converge to a local Nash equilibrium. NeurIPS 2017",
    ),
    # The backbones of LPIPS beside AlexNet.
    _torchvision(
        "vgg16",
        "vgg16-397923af.pth",
        round(527.796 * 2**20),
        "397923af",
        "Simonyan, Zisserman: Very deep convolutional networks for large-scale image recognition. "
        "ICLR 2015",
        "metric",
    ),
    _torchvision(
        "squeezenet1_1",
        "squeezenet1_1-b8a52dc0.pth",
        round(4.729 * 2**20),
        "b8a52dc0",
        "Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer: SqueezeNet: AlexNet-level accuracy with "
        "50x fewer parameters and <0.5MB model size. 2016",
        "metric",
    ),
)

#: Name -> what is to be had under it.
CATALOGUE: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}


def find(name: str) -> Entry:
    """The entry of this name; ``UsageError`` names the nearest ones where there is none."""
    if name in CATALOGUE:
        return CATALOGUE[name]
    near = get_close_matches(name, CATALOGUE, n=3)
    meant = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(CATALOGUE)}"
    raise UsageError(f"no weights are known as {name!r}: {meant}")
