"""How alike two sequences are, and how steady each is: functions on arrays, and `faceplate metrics` on plates.

Pictures are [T, H, W, 3] float32, display-encoded sRGB in 0..1; every function answers one number per frame. What needs
an imported network (LPIPS, identity) is in `learned`, which loads torch.
"""

from __future__ import annotations

from inference_server.metrics.faces import gaze, gaze_drift, head_drift, landmark_drift
from inference_server.metrics.motion import WarpErrors, flow_warp_error, temporal_profile
from inference_server.metrics.pictures import ms_ssim, mse, psnr, psnr_of_mse

__all__ = [
    "WarpErrors",
    "flow_warp_error",
    "gaze",
    "gaze_drift",
    "head_drift",
    "landmark_drift",
    "ms_ssim",
    "mse",
    "psnr",
    "psnr_of_mse",
    "temporal_profile",
]
