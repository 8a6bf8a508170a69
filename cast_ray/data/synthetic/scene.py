"""What a clip shows: the object, its background and distractors as a latent, and how frames are drawn from it.

Everything that changes over time is an array with a leading T axis, and a frame is drawn from its own row alone.
Reversing a scene is therefore reversing those arrays, and reverses the drawn frames pixel for pixel.
"""

from __future__ import annotations

import colorsys
import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cast_ray.data.synthetic.classes import partner
from cast_ray.data.synthetic.motion import Motion, draw_motion
from cast_ray.data.synthetic.shapes import draw_shape

__all__ = ["Scene", "draw_scene", "render"]

FloatArray = NDArray[np.float64]
Image = NDArray[np.float32]

MAX_DISTRACTORS = 3
TEXTURE_MARGIN = 8
"""Pixels by which the background texture may slide."""
NOISE_GAIN = 3.0
"""Largest grey-level change by pixel noise."""
OUTLINE = 0.16
"""Width of the dark rim around the object, in object units."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A clip before it is drawn. Colours are RGB in 0..255; positions and radii are fractions of the frame."""

    noun: int
    motion: Motion
    colours: FloatArray
    """[3, 3]: first colour, second colour and rim of the object."""
    backdrop: Image
    """[S, S, 3]: the still part of the background."""
    texture: Image
    """[S + margin, S + margin, 1]: the part of the background that slides."""
    slide: NDArray[np.int64]
    """[T, 2]: row and column of the texture's visible part."""
    noise: Image
    """[2S, 2S, 1]: pixel noise, of which each frame shows another part."""
    noise_at: NDArray[np.int64]
    """[T, 2]: row and column of that part."""
    spots: FloatArray
    """[T, K, 3]: column, row and opacity of the distractors."""
    spot_radii: FloatArray
    """[K]."""
    spot_colours: FloatArray
    """[K, 3]."""

    @property
    def verb(self) -> int:
        return self.motion.verb

    def reversed(self) -> Scene:
        """The scene played backwards: a scene of the partner verb."""
        return dataclasses.replace(
            self,
            motion=self.motion.reversed(),
            slide=self.slide[::-1],
            noise_at=self.noise_at[::-1],
            spots=self.spots[::-1],
        )


def draw_scene(rng: np.random.Generator, *, verb: int, noun: int, num_frames: int, size: int) -> Scene:
    """Draw a scene of the given classes; nothing but shape and motion depends on them.

    With the same generator state, a verb and its partner give scenes that are each other's reverse.
    """
    first = min(verb, partner(verb))
    motion = draw_motion(rng, first, num_frames)
    count = int(rng.integers(0, MAX_DISTRACTORS + 1))
    scene = Scene(
        noun=noun,
        motion=motion,
        colours=_object_colours(rng),
        backdrop=_backdrop(rng, size),
        texture=_texture(rng, size + TEXTURE_MARGIN),
        slide=_slide(rng, num_frames),
        noise=rng.uniform(-NOISE_GAIN, NOISE_GAIN, (2 * size, 2 * size, 1)).astype(np.float32),
        noise_at=rng.integers(0, size + 1, (num_frames, 2)),
        spots=_spots(rng, count, num_frames),
        spot_radii=rng.uniform(0.03, 0.07, count),
        spot_colours=rng.uniform(0.0, 255.0, (count, 3)),
    )
    return scene if verb == first else scene.reversed()


def render(scene: Scene) -> NDArray[np.uint8]:
    """Draw the frames [T, S, S, 3] of a scene."""
    size = scene.backdrop.shape[0]
    num_frames = len(scene.slide)
    frames = np.empty((num_frames, size, size, 3), np.float32)
    for index in range(num_frames):
        (row, column), (noise_row, noise_column) = scene.slide[index], scene.noise_at[index]
        frame = scene.backdrop + scene.texture[row : row + size, column : column + size]
        _paint_spots(frame, scene, index)
        _paint_object(frame, scene, index)
        frames[index] = frame + scene.noise[noise_row : noise_row + size, noise_column : noise_column + size]
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)


def _paint_object(frame: Image, scene: Scene, index: int) -> None:
    motion, size = scene.motion, frame.shape[0]
    centre_x, centre_y, radius = (float(axis[index]) for axis in (motion.x, motion.y, motion.radius))
    rows, columns = _window(centre_y, radius, size), _window(centre_x, radius, size)
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size
    across = (grid[columns] - centre_x)[None, :] / radius
    down = (grid[rows] - centre_y)[:, None] / radius
    cosine, sine = np.cos(motion.angle[index]), np.sin(motion.angle[index])
    u = (across * cosine + down * sine).astype(np.float32)
    v = (down * cosine - across * sine).astype(np.float32)
    rim, cover, second = draw_shape(scene.noun, u, v, softness=1.0 / (size * radius), rim=OUTLINE)
    first_colour, second_colour, rim_colour = scene.colours.astype(np.float32)
    paint = first_colour + second[..., None] * (second_colour - first_colour)
    paint = rim_colour + cover[..., None] * (paint - rim_colour)
    part = frame[rows, columns]
    part += rim[..., None] * (paint - part)


def _paint_spots(frame: Image, scene: Scene, index: int) -> None:
    size = frame.shape[0]
    for (x, y, opacity), radius, colour in zip(scene.spots[index], scene.spot_radii, scene.spot_colours, strict=True):
        rows, columns = _window(y, radius, size), _window(x, radius, size)
        grid = (np.arange(size, dtype=np.float32) + 0.5) / size
        distance = np.hypot((grid[columns] - x)[None, :], (grid[rows] - y)[:, None])
        cover = opacity * np.clip((radius - distance) * size + 0.5, 0.0, 1.0)
        part = frame[rows, columns]
        part += (cover[..., None] * (colour - part)).astype(np.float32)


def _window(centre: float, radius: float, size: int) -> slice:
    """The rows or columns that a shape of this centre and radius can touch."""
    reach = 1.3 * radius + 1.0 / size
    return slice(max(0, int((centre - reach) * size)), max(0, min(size, int((centre + reach) * size) + 1)))


def _object_colours(rng: np.random.Generator) -> FloatArray:
    """A bright, a dark and a near-black shade of one random hue."""
    hue, saturation = rng.uniform(), rng.uniform(0.3, 0.9)
    shades = ((saturation, rng.uniform(0.85, 1.0)), (saturation, rng.uniform(0.1, 0.3)), (0.5, 0.05))
    return 255.0 * np.array([colorsys.hsv_to_rgb(hue, s, v) for s, v in shades])


def _backdrop(rng: np.random.Generator, size: int) -> Image:
    """A gradient [S, S, 3] between two muted colours in a random direction."""
    ends = rng.uniform(50.0, 150.0, (2, 3))
    angle = rng.uniform(0.0, 2.0 * np.pi)
    grid = np.linspace(-0.5, 0.5, size)
    mix = 0.5 + 0.7 * (grid[None, :] * np.cos(angle) + grid[:, None] * np.sin(angle))
    return (ends[0] + mix[..., None] * (ends[1] - ends[0])).astype(np.float32)


def _texture(rng: np.random.Generator, size: int) -> Image:
    """The sum [S, S, 1] of two waves of random direction, length and strength."""
    grid = np.arange(size) / size
    waves = np.zeros((size, size))
    for _ in range(2):
        angle, frequency = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(1.0, 5.0)
        along = grid[None, :] * np.cos(angle) + grid[:, None] * np.sin(angle)
        waves += rng.uniform(0.0, 14.0) * np.sin(2.0 * np.pi * (frequency * along + rng.uniform()))
    return waves[..., None].astype(np.float32)


def _slide(rng: np.random.Generator, num_frames: int) -> NDArray[np.int64]:
    """A straight path [T, 2] between two random offsets of the texture."""
    ends = rng.uniform(0.0, TEXTURE_MARGIN, (2, 2))
    return np.rint(np.linspace(ends[0], ends[1], num_frames)).astype(np.int64)


def _spots(rng: np.random.Generator, count: int, num_frames: int) -> FloatArray:
    """Straight or resting paths [T, K, 3] of distractors that may blink."""
    ends = rng.uniform(-0.05, 1.05, (2, count, 2))
    resting = rng.uniform(size=count) < 0.4
    ends[1, resting] = ends[0, resting]
    place = np.linspace(ends[0], ends[1], num_frames)
    blink = rng.uniform(size=(num_frames, count)) < np.where(rng.uniform(size=count) < 0.5, 1.0, 0.6)
    return np.concatenate([place, blink[..., None] * rng.uniform(0.5, 1.0, (count, 1))], axis=-1)
