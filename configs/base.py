"""Every key of a run, with its default and its unit.

Experiment files start from here and state differences only. Any key can be set
on the command line, for instance `--config.optim.learning_rate=0.05`.
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
  """Returns the defaults, locked: a key that is not here is an error."""
  config = ml_collections.ConfigDict()
  config.seed = 0

  config.data = _section(
    # Records, plain files with a clips.csv, or a folder a class: docs/data.md
    dir='',
    num_frames=16,  # frames a clip
    # 'clip': a part of the video, at `frame_stride`; 'uniform': the whole video
    # in `num_frames` equal parts, a frame of each, whatever the stride (TSN,
    # TSM); 'dense': as 'clip', but nothing is drawn but the start, and frames
    # beyond the end begin again at 0, a window being `num_frames` times
    # `frame_stride` (TSM and TANet on Kinetics: 64, so 8 for 8 frames)
    sampling='clip',
    # Source frames from one frame of a clip to the next; the thesis takes 2 for
    # HACS, 3 for Moments in Time, 5 for Kinetics
    frame_stride=5,
    # Of 'clip' in training: the start frame, 'uniform' or 'normal'; and whether
    # the others are drawn among all that follow, or are the next ones
    start='uniform',
    draw_frames=True,
    short_side=320,  # pixels: training videos are resized to this
    crop_size=224,  # pixels: random square crop
    input_size=224,  # pixels: the crop is resized to this for the model
    flip=True,  # mirror half of the training clips: docs/data.md
    augment_share=0.0,  # of training clips that augmentations change
    augment_method_share=0.4,  # of those, the share that each method changes
    rand_augment=0,  # RandAugment: changes of each training clip
    rand_augment_strength=0.3,  # of them, from 0 to 1
    # Of training clips, those that are mixed with another one of the batch:
    # MixUp blends two clips, CutMix puts a box of one into the other. How much
    # is drawn from a beta distribution of (alpha, alpha).
    mixup_share=0.0,
    mixup_alpha=0.8,
    cutmix_share=0.0,
    cutmix_alpha=1.0,
    # Of videos that are folders of images, where a clips.csv does not say it.
    # Only seconds depend on it; 25 is what most data sets have
    frames_per_second=25.0,
    short_videos='repeat',  # with too few frames for a clip: or 'error'
    max_broken_share=0.01,  # of unreadable videos, above which training stops
    read_attempts=4,  # at a file that a disk or network fails to give
    num_workers=2,  # loader processes; 0 loads in the main process
    prefetch=2,  # batches that each worker keeps ready
  )

  config.model = _section(
    name='mtnet_m',  # one of mtnet_jax.models.NAMES
    # Of the computation, or 'bfloat16', or 'float16' with a scaled loss where a
    # GPU has no bfloat16; parameters are float32
    dtype='float32',
    # Training computes each block again in the backward pass: less memory
    rematerialize=False,
    # Overrides of the named model; unset means the model's own default.
    class_regularization=config_dict.placeholder(bool),  # after every stage
    # Its strength for each stage, from 1 (without effect) to 0
    affection_rates=config_dict.placeholder(tuple),
    # How it scores a class: 'sum', as the thesis, or the stage's 'own' way
    regularization_score=config_dict.placeholder(str),
    dropout=config_dict.placeholder(float),
    local_ratio=config_dict.placeholder(float),  # MTConv's delta, in (0, 1]
    # MTConv's prolonged branch: 'avg', 'max', 'stochastic', 'softpool',
    # 'avg+cos' or 'softpool+cos'
    pooling=config_dict.placeholder(str),
    # False: each input of that branch keeps frames of its own
    shared_selection=config_dict.placeholder(bool),
    # What chooses the frames kept: 'branch', 'input', 'motion', 'random' or
    # 'every_second'; and whether they are put back at their own times
    selection_input=config_dict.placeholder(str),
    keep_times=config_dict.placeholder(bool),
    # 'split': each branch of an MTConv reads its own share of the channels
    branch_inputs=config_dict.placeholder(str),
    # False: MTNet's kernels see one frame at a time, as a control
    temporal_kernels=config_dict.placeholder(bool),
    # True: beyond a clip's ends MTNet repeats its frames, rather than zeros
    repeat_edges=config_dict.placeholder(bool),
    recurrence=config_dict.placeholder(bool),  # MTNet: SR in every block
    # MTNet: squeeze-and-excitation in every other block, as X3D has it
    squeeze_excitation=config_dict.placeholder(bool),
    cell=config_dict.placeholder(str),  # gru, lstm, peephole_lstm or rnn
    middle=config_dict.placeholder(str),  # bottleneck ResNets: its kernels
    placement=config_dict.placeholder(str),  # SRTG: where in the block
    gate=config_dict.placeholder(bool),  # SRTG: the cycle-consistency gate
    # What the gate compares: 'hidden', 'fused' or 'normalized'
    gate_embedding=config_dict.placeholder(str),
    recurrent_layers=config_dict.placeholder(int),  # of Squeeze and Recursion
    # MTNet: groups of each branch's 3x3x3; 0: a group for each channel
    separated_groups=config_dict.placeholder(int),
    stage_features=config_dict.placeholder(tuple),  # 3-D ResNets: widths
    norm_epsilon=config_dict.placeholder(float),  # what BN adds to variances
    # SlowFast: which frames its slow pathway sees, 'linspace' or 'nearest'; how
    # many frames lateral connections see, and whether BN ends them
    slow_frames=config_dict.placeholder(str),
    lateral_frames=config_dict.placeholder(int),
    lateral_norm=config_dict.placeholder(bool),
    # What networks of other authors have: no max-pool after the stem, residual
    # connections without weights (3-D ResNets), BN on all projected ones (X3D),
    # and other numbers to normalize pixels by, a channel each, of [0, 1]
    # brightness
    stem_pool=config_dict.placeholder(bool),
    project_shortcuts=config_dict.placeholder(bool),
    # Bottleneck ResNets: the last BN of each block starts with a scale of 0
    zero_init_residual=config_dict.placeholder(bool),
    norm_all_shortcuts=config_dict.placeholder(bool),
    input_mean=config_dict.placeholder(tuple),
    input_std=config_dict.placeholder(tuple),
  )

  config.optim = _section(
    name='sgd',  # or 'adamw'
    schedule='cosine',  # half a period, or 'step'
    learning_rate=0.1,  # at a batch of `reference_batch`; scales linearly
    reference_batch=64,
    warmup_steps=0,  # linear, from zero
    milestones=(),  # epochs at which 'step' multiplies by `decay`
    decay=0.1,
    momentum=0.9,  # of sgd; of adamw it is beta 1
    second_momentum=0.999,  # of adamw alone: its beta 2
    weight_decay=5e-5,  # not on BN scales and biases; adamw takes far more
    # The largest norm of all of the gradient together; 0: any
    clip_norm=0.0,
    # Of a moving average of the weights, what it keeps of itself at an update,
    # for instance 0.999; it is what is validated, evaluated and exported. 0: no
    # average
    ema_decay=0.0,
    label_smoothing=0.0,  # share of a label that is spread over all classes
    backbone_rate=1.0,  # of all but the classifier, over the learning rate
    # 'all', or on the weights of `train.init_from` only the 'classifier' or the
    # maps of 'class_regularization'; BN then keeps its statistics
    trained='all',
  )

  config.train = _section(
    batch_size=64,  # clips a step, over all devices
    accumulate=1,  # steps whose gradients' mean makes one update
    num_epochs=400.0,
    num_steps=0,  # 0: from num_epochs
    # Multigrid: shapes that change with the step, at constant b·t·h·w
    long_cycle=False,  # four shapes an epoch: many small clips first
    short_cycle=False,  # three shapes, step by step
    # Workdir whose weights a new run starts from, those of its best checkpoint;
    # or WORKDIR/checkpoints/STEP
    init_from='',
    gate_after=0,  # steps before which SRTG's gates only measure
    # Of the loss, weight of Class Regularisation's early predictions; the
    # thesis leaves it out on purpose
    regularization_loss=0.0,
    norm_batch_size=0,  # clips that share BN statistics; 0: one device's
    freeze_norm=False,  # BN keeps the statistics that it has of `init_from`
    precise_norm_steps=0,  # batches that BN's statistics are of in validation
    log_every=50,  # steps
    eval_every=1_000,  # steps; validation with one view a video
    checkpoint_every=500,  # steps
    validation_split='val',  # '' for none
    # Validations without a better top-1 after which training ends; 0: never
    patience=0,
    # False: a full disk is a warning, and a single process trains on
    stop_if_unsaved=True,
    stall_timeout=600,  # seconds without a batch or a step; then it ends
    # Folder in which compiled programs are kept for the next start, perhaps of
    # a bucket, gs://BUCKET/FOLDER; '': JAX_COMPILATION_CACHE_DIR, or none
    compilation_cache='',
  )

  # Devices: their product is the number of all; data=0 takes what fsdp leaves.
  config.mesh = _section(
    data=0,  # groups of devices, each with all of the parameters
    fsdp=1,  # devices in a group, each with a share of them
  )

  config.eval = _section(
    split='test',
    num_clips=10,  # temporal views a video
    num_crops=3,  # spatial views a clip, along the long side
    crop_size=256,  # pixels: the short side is resized to this
    input_size=256,  # pixels: the crop is resized to this for the model
    clips_per_step=30,  # views that go through the model at once
    # Pairs of classes that are each other's reversal in time, for --controls.
    reversed_pairs=(),
  )
  config.lock()
  return config


def _section(**keys) -> ml_collections.ConfigDict:
  return ml_collections.ConfigDict(keys)
