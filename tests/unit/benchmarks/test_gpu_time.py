"""Shares of a GPU's time, on a hand-made timeline of two streams."""

import sys

import pytest

from fixtures.repository import ROOT

sys.path.append(str(ROOT / "benchmarks"))

from gpu_time import Kernel, covered, time_shares

GEMM = "sm90_xmma_gemm_bf16bf16_bf16f32"
NCCL = "ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgsStorage<4096ul>)"
# 100 us: a product 0-40, copying 30-50, a gather 45-70 (alone 50-70), nothing, an update 80-100.
TIMELINE = [
    Kernel("void multi_tensor_apply_kernel<FusedAdamMathFunctor>", 80, 100),
    Kernel(GEMM, 0, 40),
    Kernel("Memcpy HtoD (Pinned -> Device)", 30, 50),
    Kernel(NCCL, 45, 70),
]


def test_shares_by_hand() -> None:
    assert time_shares(TIMELINE) == {
        "communication": 0.25,
        "attention": 0.0,
        "matrix products": 0.4,
        "optimizer": 0.2,
        "everything else": 0.2,
        "communication alone": 0.2,
        "idle": 0.1,
        "seconds": 0.0001,
    }


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (GEMM, "matrix products"),
        ("nvjet_tst_256x128_64x4_2x1_v_bz_coopA_TNN", "matrix products"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma", "attention"),
        (NCCL, "communication"),
        ("triton_poi_fused_mul_silu_0", "everything else"),
    ],
)
def test_kinds(name: str, kind: str) -> None:
    assert Kernel(name, 0, 1).kind == kind


def test_overlaps_count_once() -> None:
    spans = [(3, 9), (0, 5), (4, 6), (20, 21)]
    assert covered(Kernel("x", *span) for span in spans) == 10
    marks = {tick for begin, end in spans for tick in range(begin, end)}
    assert len(marks) == 10
