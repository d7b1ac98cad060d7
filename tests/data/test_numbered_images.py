"""Which files of a folder are a video's frames, and in which order."""

import pytest

from mtnet_jax.data import numbered_images


@pytest.mark.parametrize(
  ('names', 'expected'),
  [
    # By number and not by text; digits may be padded or not.
    (['f10.jpg', 'f9.jpg', *(f'f{i}.jpg' for i in range(1, 9))],
     [f'f{i}.jpg' for i in range(1, 11)]),
    (['00000.png', '00002.png', '00001.png'],
     ['00000.png', '00001.png', '00002.png']),
    (['a2_1.JPG', 'a2_2.jpg'], ['a2_1.JPG', 'a2_2.jpg']),
    # What is no numbered image, or hidden, does not count.
    (['img_1.jpg', 'cover.jpg', 'n2.txt', '._img_2.jpg', '.3.jpg', 'x4.mp4'],
     ['img_1.jpg']),
    # Nor does optical flow beside frames.
    (['img_1.jpg', 'flow_x_1.jpg', 'flow_y_1.jpg'], ['img_1.jpg']),
    (['image1.jpg', 'x_1.jpg', 'y_1.jpg'], ['image1.jpg']),
    (['x_1.jpg', 'x_2.jpg'], ['x_1.jpg', 'x_2.jpg']),
  ],
)  # fmt: skip
def test_frames_in_order(names, expected):
  assert numbered_images.order(names) == expected
  assert numbered_images.order(reversed(names)) == expected


@pytest.mark.parametrize(
  ('names', 'message'),
  [
    ([], 'a directory that holds no numbered images, such as img_00001.jpg'),
    (['a.jpg', '1.txt'], 'holds no numbered images'),
    (['a1.jpg', 'b1.jpg'], 'several series of images, such as a1.jpg and b1'),
    (['flow_x_1.jpg', 'flow_y_1.jpg'], 'several series of images'),
    (['1.jpg', '2.png'], 'its images end in .jpg and .png: keep those of one'),
    (['1.jpg', '01.jpg'], 'its images 01.jpg and 1.jpg have one number'),
    (['7.jpg', '8.jpg'], 'numbered from 7 on, and not from 0 or 1'),
    (['1.jpg', '2.jpg', '4.jpg'],
     'from 1 to 4, and 1 of them is missing, the first is number 3'),
    (['0.jpg', '5.jpg', '10.jpg'],
     'from 0 to 10, and 8 of them are missing, the first is number 1'),
  ],
)  # fmt: skip
def test_folders_that_are_no_video(names, message):
  with pytest.raises(ValueError) as caught:
    numbered_images.order(names)
  assert message in str(caught.value)
