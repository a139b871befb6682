"""How a quantized linear is written in ONNX: as codes, as codes with rounded inputs, or as float32 weights.

``codes``: onnxruntime's MatMulNBits, 4 or 8 bits in blocks of 32 (16) input columns that share a scale; codes of fewer
bits and larger groups fit without a change, scales are repeated. Products are computed in float32.
``int8_dynamic``: inputs are rounded as they come, one grid a token of at most 8 bits, and multiplied with the codes in
integers (MatMulInteger), with one scale per output channel. DynamicQuantizeLinear is not used: its one grid a tensor
would make a clip's result depend on which others share its batch.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from src.export.onnx_graph import MICROSOFT, Graph
from src.quant.granularity import QuantizedWeight

BLOCKS = (32, 16)  # what MatMulNBits takes and groups may be made of; the issue of speed is the runtime's
WIDTHS = (4, 8)  # those the CPU kernels are made for


def block_size(group: int) -> int | None:
    """The largest block that groups of ``group`` columns are made of; None where there is none."""
    return next((block for block in BLOCKS if group % block == 0), None)


def linear(graph: Graph, x: str, path: str, form: str) -> str:
    """The linear at ``path`` applied to ``x`` [..., in], in one of the forms of the module docstring."""
    weight = graph.model.stored.weights.get(path)
    if weight is None:
        product = graph.op("MatMul", x, graph.parameter(f"{path}.weight", transposed=True))
    elif form == "codes":
        product = _codes(graph, x, path, weight)
    elif form == "int8_dynamic":
        product = _integers(graph, x, path, weight)
    else:
        dense = weight.dequantize().numpy()
        product = graph.op("MatMul", x, graph.tensor(f"{path}.weight", dense.T))
    if not graph.has(f"{path}.bias"):
        return product
    return graph.op("Add", product, graph.parameter(f"{path}.bias"))


def _codes(graph: Graph, x: str, path: str, weight: QuantizedWeight) -> str:
    rows, columns = weight.shape
    bits = next(width for width in WIDTHS if weight.spec.bits <= width)
    block = block_size(weight.spec.columns_per_group(columns))
    assert block is not None, "refused before"
    blocks = columns // block
    repeats = blocks // weight.scale.shape[1]
    scale = weight.scale.float().numpy().repeat(repeats, axis=1)
    codes = weight.codes.numpy().reshape(rows, blocks, block)
    inputs = [
        graph.tensor(f"{path}.codes", packed(codes, bits)),
        graph.tensor(f"{path}.scale", scale.reshape(-1)),
    ]
    zero = weight.zero.numpy().repeat(repeats, axis=1)
    if zero.dtype == np.float16:
        inputs.append(graph.tensor(f"{path}.zero", zero.astype(np.float32)))
    elif (zero != 1 << (bits - 1)).any():  # without them, the middle code
        inputs.append(graph.tensor(f"{path}.zero", packed(zero, bits).reshape(-1)))
    if weight.perm is not None:
        x = graph.op("Gather", x, graph.tensor(f"{path}.order", weight.perm.numpy()), axis=-1)
    sizes = {"K": columns, "N": rows, "bits": bits, "block_size": block}
    return graph.op("MatMulNBits", x, *inputs, domain=MICROSOFT, accuracy_level=1, **sizes)  # 1: float32


def packed(codes: np.ndarray, bits: int) -> np.ndarray:
    """Uint8 codes with two to a byte, the first in the low half, at 4 bits; an odd last one alone."""
    if bits == WIDTHS[-1]:
        return codes
    even = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, codes.shape[-1] % 2)])
    halves: np.ndarray = even[..., 0::2] | even[..., 1::2] << bits
    return halves


def _integers(graph: Graph, x: str, path: str, weight: QuantizedWeight) -> str:
    """``y = s_x s_w (x_q - z_x) (W_q - z_w)^T``, in integers but for the scales.

    ONNX Runtime knows no zero points by row, so theirs is taken off afterwards: ``z_x`` times the sum of each column.
    """
    codes, scale, zero = graph.once(("rounded", x), lambda: _rounded_tokens(graph, x))
    W = weight.codes.numpy().T
    sums = (W.astype(np.int32).sum(axis=0) - len(W) * weight.zero.numpy()[:, 0].astype(np.int32)).astype(np.int32)
    stored = graph.tensor(f"{path}.codes", W), graph.tensor(f"{path}.zero", weight.zero.numpy()[:, 0])
    product = graph.op("MatMulInteger", codes, stored[0], "", stored[1])
    shift = graph.op("Mul", zero, graph.tensor(f"{path}.sums", sums))
    steps = graph.op("Mul", scale, graph.tensor(f"{path}.scale", weight.scale.float().numpy()[:, 0]))
    return graph.op("Mul", graph.op("Cast", graph.op("Sub", product, shift), to=TensorProto.FLOAT), steps)


def _rounded_tokens(graph: Graph, x: str) -> tuple[str, str, str]:
    """Codes uint8 of ``x`` [..., in], scales float32 and zero points int32 [..., 1]: each row on its own grid.

    The arithmetic of :func:`src.quant.fake.fake_quantize_tokens`.
    """
    last, nothing = graph.constant([-1]), graph.constant(0.0, np.float32)
    most = graph.constant(float((1 << graph.model.abits) - 1), np.float32)
    low = graph.op("Min", graph.op("ReduceMin", x, last), nothing)
    high = graph.op("Max", graph.op("ReduceMax", x, last), nothing)
    step = graph.op("Div", graph.op("Sub", high, low), most)
    scale = graph.op("Max", step, graph.constant(np.finfo(np.float32).tiny, np.float32))
    zero = graph.op("Round", graph.op("Neg", graph.op("Div", low, scale)))
    shifted = graph.op("Add", graph.op("Round", graph.op("Div", x, scale)), zero)
    codes = graph.op("Cast", graph.op("Min", shifted, most), to=TensorProto.UINT8)
    return codes, scale, graph.op("Cast", zero, to=TensorProto.INT32)
