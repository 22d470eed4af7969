"""The formats that a policy version can be exported to: what each needs, and how far its logits may differ from the policy's. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Name = Literal["hf", "peft", "gguf", "onnx", "openvino", "litert", "savedmodel"]


@dataclass(frozen=True, slots=True)
class Bound:
    """What passes the check: the largest difference of any logit, or the mean divergence where single logits say little."""

    max_difference: float | None = None
    """Largest absolute difference of a logit, over all prompts and tokens."""
    max_kl: float | None = None
    """Largest mean KL divergence from the policy's distribution to the export's, in nats a token."""

    def in_words(self) -> str:
        if self.max_difference is not None:
            return f"no logit differs by more than {self.max_difference:g}"
        return f"mean KL of at most {self.max_kl:g} nats a token"


@dataclass(frozen=True, slots=True)
class Format:
    """One format."""

    name: Name
    what: str
    """What the export is and which programs read it, for the help and the documents."""
    file: str
    """The file or folder that the runtime is given, inside the export."""
    runtime: str
    """The program that reads the export in the check."""
    library: str
    """The hub's name for the library that reads it, for the card."""
    client_packages: str
    """What the client of `clients` needs."""
    bound: Bound
    packages: tuple[str, ...] = ()
    """What the export and its check need beside rankloop's own packages, all pinned, with what they need in turn."""
    variants: Mapping[str, Bound] | None = None
    """Bounds of other types of weights than float32 (`--weights`)."""

    def bound_of(self, weights: str) -> Bound:
        return (self.variants or {}).get(weights, self.bound)

    @property
    def weights(self) -> tuple[str, ...]:
        """Types of weights that the format can be written with, the default first."""
        return (*(() if self.name == "gguf" else ("float32",)), *(self.variants or {}))


ONNX_PACKAGES = (
    "flatbuffers==25.12.19", "ml_dtypes==0.6.0", "onnx==1.23.2", "onnx-ir==1.1.0", "onnxruntime==1.32.0", "onnxscript==0.7.2",
    "protobuf==7.36.2",
)  # fmt: skip

LITERT_PACKAGES = (
    "absl-py==2.5.1", "ai-edge-litert==2.3.0", "ai-edge-quantizer==0.10.0", "flatbuffers==25.12.19", "immutabledict==4.3.1", "jax==0.10.2",
    "jaxlib==0.10.2", "litert-converter==0.5.0", "litert-torch==0.10.0", "ml_dtypes==0.6.0", "opt_einsum==3.4.0", "protobuf==7.36.2",
    "torchao==0.18.0",
)  # fmt: skip

TENSORFLOW_PACKAGES = (
    "absl-py==2.5.1", "astunparse==1.6.3", "flatbuffers==25.12.19", "gast==0.7.0", "h5py==3.16.0", "kagglehub==1.0.3", "kagglesdk==0.1.38",
    "keras==3.15.1", "keras-hub==0.32.0", "ml_dtypes==0.6.0", "namex==0.1.0", "opt_einsum==3.4.0", "optree==0.20.0", "protobuf==7.36.2",
    "sentencepiece==0.2.3", "six==1.17.0", "tensorflow-cpu==2.21.0", "termcolor==3.3.0", "wrapt==2.5.2",
)  # fmt: skip

XLLAMACPP = "xllamacpp==2026.10.11549"
"""llama.cpp, built: it checks GGUF files where it is installed."""

FORMATS: Mapping[Name, Format] = {
    format.name: format
    for format in (
        Format(
            "hf",
            "merged safetensors with tokenizer, chat template, generation config and card, for transformers and vLLM",
            ".",
            "transformers",
            "transformers",
            "torch transformers",
            Bound(max_difference=1e-3),
            # Rounded weights are other weights: half as large, and nearly the policy that was trained.
            variants={"bfloat16": Bound(max_kl=0.02), "float16": Bound(max_kl=0.02)},
        ),
        Format(
            "peft",
            "the adapter alone, for PEFT and vLLM beside the base model",
            ".",
            "PEFT",
            "peft",
            "torch transformers peft",
            Bound(max_difference=1e-3),
        ),
        Format(
            "gguf",
            "one merged file with tokenizer and chat template, for llama.cpp, Ollama and LM Studio",
            "model.gguf",
            "llama.cpp where xllamacpp is installed, else transformers",
            "gguf",
            XLLAMACPP,
            Bound(max_kl=0.02),
            variants={"f16": Bound(max_kl=0.02), "q4_1": Bound(max_kl=0.5)},
        ),
        Format(
            "onnx",
            "one merged graph with a cache of keys and values, for ONNX Runtime",
            "model.onnx",
            "ONNX Runtime",
            "onnx",
            "onnxruntime tokenizers jinja2",
            Bound(max_difference=5e-3),
            packages=ONNX_PACKAGES,
        ),
        Format(
            "openvino",
            "one merged graph that keeps its cache between calls, for OpenVINO",
            "openvino_model.xml",
            "OpenVINO",
            "openvino",
            "openvino tokenizers jinja2",
            Bound(max_difference=5e-3),
            packages=("openvino==2026.4.1", "openvino-telemetry==2025.2.0"),
        ),
        Format(
            "litert",
            "one merged file with a cache of fixed length that its caller keeps, for LiteRT, once TensorFlow Lite",
            "model.tflite",
            "LiteRT",
            "litert",
            "ai-edge-litert tokenizers jinja2",
            Bound(max_difference=5e-3),
            packages=LITERT_PACKAGES,
        ),
        Format(
            "savedmodel",
            "one merged graph without a cache, for TensorFlow and TensorFlow Serving",
            "model",
            "TensorFlow",
            "tf-keras",
            "tensorflow tokenizers jinja2",
            # KerasHub's model of the architecture is another program: its logits differ by up to .02, its distributions by 2e-7 nats.
            Bound(max_difference=0.05),
            packages=TENSORFLOW_PACKAGES,
        ),
    )
}
