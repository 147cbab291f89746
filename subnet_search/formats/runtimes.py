"""Files that other runtimes run, as networks that are timed like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from subnet_search.formats.deployable import INPUT
from subnet_search.formats.optional import quiet, require


class OnnxNetwork(nn.Module):
    """A session of onnxruntime on the CPU.

    Args:
        path: The file; it has to stay there for deep copies, each of which opens a session of its own.
        threads: Threads of one pass.

    Raises:
        SubnetSearchError: where onnxruntime is missing.
    """

    def __init__(self, path: Path, threads: int) -> None:
        super().__init__()
        self.path, self.threads = path, threads
        runtime = require("onnxruntime", "onnx")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.force_spinning_stop", "1")  # or it slows what runs after it
        self._session: Any = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def __deepcopy__(self, memo: dict[int, Any]) -> OnnxNetwork:  # for a measurement of its memory
        return type(self)(self.path, self.threads)

    def forward(self, x: Tensor) -> list[Any]:
        """Runs the file on `[batch, ...]` and returns its outputs as NumPy arrays."""
        outputs: list[Any] = self._session.run(None, {INPUT: x.numpy()})
        return outputs


class PteNetwork(nn.Module):
    """A program of ExecuTorch.

    Args:
        path: The file, of one batch size.
        threads: Threads of one pass; a setting of the whole process.

    Raises:
        SubnetSearchError: where executorch is missing.
    """

    def __init__(self, path: Path, threads: int) -> None:
        super().__init__()
        runtime = require("executorch.runtime", "edge")
        bindings = require("executorch.extension.pybindings.portable_lib", "edge")
        with quiet():
            if bindings._threadpool_get_thread_count() != threads:
                bindings._unsafe_reset_threadpool(threads)  # unsafe while a program runs, and none does
            self._program: Any = runtime.Runtime.get().load_program(path.read_bytes())
            self._method: Any = self._program.load_method("forward")

    def forward(self, x: Tensor) -> list[Tensor]:
        """Runs the file on `[batch, ...]` and returns its outputs."""
        outputs: list[Tensor] = list(self._method.execute([x.contiguous()]))
        return outputs
