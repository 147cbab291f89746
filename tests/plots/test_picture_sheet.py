import numpy as np

from subnet_search.plots.picture_sheet import Shown, picture_sheet


def test_images_and_captions_are_in_rows_of_four() -> None:
    images = [np.full((1, 5, 5), k, dtype=np.uint8) for k in range(5)]
    shown = [
        Shown(image, f"true: {k}", (("cat", 0.75), ("a_very_long_class_name", 0.2))) for k, image in enumerate(images)
    ]
    figure = picture_sheet(shown)
    assert len(figure.axes) == 5
    for k, axes in enumerate(figure.axes):
        assert np.array_equal(axes.images[0].get_array(), np.full((5, 5, 3), k))
        words = [text.get_text() for text in axes.texts]
        assert words[:2] == [f"true: {k}", "75% cat"]
        assert words[2].endswith("…")
    tops = [axes.get_position().y1 for axes in figure.axes]
    assert tops[0] == tops[3] > tops[4]


def test_colours_stay_what_they_are() -> None:
    image = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    (axes,) = picture_sheet([Shown(image, "x", ())]).axes
    assert np.array_equal(axes.images[0].get_array(), np.moveaxis(image, 0, -1))
