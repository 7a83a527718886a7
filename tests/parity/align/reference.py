"""Makes the fixture beside this file: similarities that bring landmarks onto InsightFace's template.

    python tests/parity/align/reference.py

Needs numpy. Made with numpy 2.4.6. The template and its sizes are those of `insightface/utils/face_align.py`
(`arcface_dst`, `estimate_norm`); the similarity is written out after Umeyama (1991, *Least-squares estimation of transformation
parameters between two point patterns*, equations 40 to 43), with the singular value decomposition that scikit-image's
`SimilarityTransform`, which InsightFace calls, has as well.
"""

import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
ARCFACE_DST = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)


def template(size):
    if size % 112 == 0:
        ratio, shift = size / 112, 0.0
    else:
        assert size % 128 == 0
        ratio = size / 128
        shift = 8.0 * ratio
    points = ARCFACE_DST * ratio
    points[:, 0] += shift
    return points


def umeyama(source, target):
    """The 2×3 matrix of the similarity from `source` to `target`."""
    source_mean, target_mean = source.mean(0), target.mean(0)
    a, b = source - source_mean, target - target_mean
    u, d, vt = np.linalg.svd(b.T @ a / len(source))
    signs = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ np.diag(signs) @ vt
    scale = (d * signs).sum() / (a**2).sum(1).mean()
    return np.hstack([scale * rotation, (target_mean - scale * rotation @ source_mean)[:, None]])


rng = np.random.default_rng(0)
cases = []
for size in (112, 224, 128, 256, 896):
    for angle in (0.0, 0.4, -1.2, 2.9):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        points = ARCFACE_DST @ turn.T * rng.uniform(0.3, 4) + rng.uniform(-50, 900, 2)
        points = (points + rng.normal(0, 6, points.shape)).round(3)
        # A face in profile, whose best fit without the sign of the determinant were a reflection.
        if angle == 2.9:
            points = points * [-1, 1] + [1000, 0]
        matrix = umeyama(points, template(size))
        cases.append(dict(size=size, landmarks=points.tolist(), matrix=matrix.tolist()))
(HERE / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")
