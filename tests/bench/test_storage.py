"""The storage benchmark: its measures of likeness, and that it prints a row for every format."""

from __future__ import annotations

import av
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cast_ray.bench import storage


def images(seed=0, noise=0.0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:40, :50]
    clean = 128 + 60 * np.sin(x / 5)[..., None] + np.array([0, 20, 40]) * np.cos(y / 7)[..., None]
    return np.clip(np.stack([clean, clean[::-1]]) + rng.normal(0, noise, (2, 40, 50, 3)), 0, 255).astype(np.uint8)


def test_likeness_is_perfect_only_for_the_same_pictures():
    assert storage._psnr(images(), images()) == np.inf
    assert storage._ssim(images(), images()) == pytest.approx(1.0)
    assert storage._psnr(images(), images() + 1) == pytest.approx(20 * np.log10(255))
    assert storage._ssim(images(), images(noise=10)) < 0.95


def test_structural_similarity_is_the_papers_formula():
    weights = np.array([0.299, 0.587, 0.114])
    x, y = images() @ weights, images(1, noise=12) @ weights
    similarities = []
    for a, b in zip(x, y, strict=True):

        def smooth(values):
            return gaussian_filter(values, 1.5, truncate=5 / 1.5)[5:-5, 5:-5]

        means = smooth(a), smooth(b)
        variances = smooth(a * a) - means[0] ** 2, smooth(b * b) - means[1] ** 2
        covariance = smooth(a * b) - means[0] * means[1]
        luminance = (2 * means[0] * means[1] + 2.55**2) / (means[0] ** 2 + means[1] ** 2 + 2.55**2)
        similarities.append(luminance * (2 * covariance + 7.65**2) / (sum(variances) + 7.65**2))
    assert storage._ssim(images(), images(1, noise=12)) == pytest.approx(np.mean(similarities), abs=1e-3)


def test_every_format_has_a_row_and_a_file_that_is_no_video_a_message(tmp_path, capsys):
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10)
        video.width, video.height = 50, 40
        for picture in np.repeat(images(), 10, axis=0):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
    assert storage.main([str(path)]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 2 + len(list(storage.formats()))
    assert {row.count("|") for row in rows} == {9}
    assert "| clip | original, sound inside |" in rows[2]
    assert "| inf | 1.0000 |" in rows[2]
    path.write_text("no video")
    assert storage.main([str(path)]) == 1
    assert "Invalid data" in capsys.readouterr().err
