"""Rate and time left, with a clock of our own."""

from mtnet_jax.progress import Progress


def test_lines_hold_rate_and_time_left(capsys):
  now = [0.0]
  with Progress(
    'training', 1_000, 'steps', done=100, clock=lambda: now[0]
  ) as progress:
    now[0] = 10.0
    progress.advance(50)  # too early for a line
    now[0] = 20.0
    progress.advance(50, 'loss 1.2')
    now[0] = 100.0
    progress.advance(800)
  lines = capsys.readouterr().err.splitlines()
  # 100 steps in 20 s since the start at step 100: 5 a second, 800 to go.
  assert lines[0] == ('training: 200/1000 steps, 5/s, 0:02:40 left  loss 1.2')
  assert lines[-1] == 'training: 1000/1000 steps, 9/s, 0:00:00 left'


def test_the_last_line_stands_once(capsys):
  now = [0.0]
  with Progress('judging', 2, 'videos', clock=lambda: now[0]) as progress:
    for _ in range(2):
      now[0] += 20.0
      progress.advance()
  lines = capsys.readouterr().err.splitlines()
  assert [line.split(' videos')[0] for line in lines] == [
    'judging: 1/2', 'judging: 2/2'
  ]  # fmt: skip


def test_no_rate_yet_is_said(capsys):
  now = [0.0]
  with Progress('evaluating', 3, 'videos', clock=lambda: now[0]):
    now[0] = 60.0
  assert capsys.readouterr().err == 'evaluating: 0/3 videos, 0/s, ? left\n'
