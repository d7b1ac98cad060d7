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
    # The data set: records, a clips.csv, or class folders; see docs/data.md.
    dir='',
    num_frames=16,  # frames per clip
    # Where the frames of a clip come from. 'clip': a part of the video, at
    # `frame_stride`. 'uniform': one frame of each of `num_frames` equal parts
    # of the whole video, without a stride (TSN, TSM). 'dense': a window of
    # `num_frames` times `frame_stride` frames, which wraps round the video's
    # end; only its start is drawn (TSM and TANet take 64 frames on Kinetics, a
    # stride of 8 for 8 frames).
    sampling='clip',
    # Source frames from one frame of a clip to the next. The thesis takes 2 for
    # HACS, 3 for Moments in Time and 5 for Kinetics.
    frame_stride=5,
    # Training with 'clip': how the start frame is drawn, 'uniform' or 'normal';
    # and whether the other frames are drawn from all that follow, or are the
    # next ones at the stride.
    start='uniform',
    draw_frames=True,
    short_side=320,  # pixels: training videos are resized to this
    crop_size=224,  # pixels: random square crop
    input_size=224,  # pixels: the crop is resized to this for the model
    flip=True,  # mirror half of the training clips: docs/data.md
    augment_share=0.0,  # share of training clips that are augmented
    augment_method_share=0.4,  # share of those that each method changes
    rand_augment=0,  # RandAugment: number of changes per training clip
    rand_augment_strength=0.3,  # strength of those changes, from 0 to 1
    # Shares of training clips that are mixed with another clip of the batch:
    # MixUp blends two clips, CutMix puts a box of one into the other. The
    # proportion is drawn from the beta distribution of (alpha, alpha).
    mixup_share=0.0,
    mixup_alpha=0.8,
    cutmix_share=0.0,
    cutmix_alpha=1.0,
    # Frame rate of folders of images for which a clips.csv gives none. Only
    # times depend on it; most data sets have 25.
    frames_per_second=25.0,
    short_videos='repeat',  # their frames; or 'error': refuse such videos
    max_broken_share=0.01,  # training stops above this share of broken videos
    read_attempts=4,  # to read a file, where a disk or a network fails
    num_workers=2,  # loader processes; 0 loads in the main process
    prefetch=2,  # batches that each loader process keeps ready
  )

  config.model = _section(
    name='mtnet_m',  # one of mtnet_jax.models.NAMES
    # Data type of the computation: 'float32', 'bfloat16', or 'float16' with a
    # scaled loss, for GPUs without bfloat16. Parameters are float32.
    dtype='float32',
    # Recompute each block in the backward pass, to save memory in training.
    rematerialize=False,
    # The keys below override fields of the named model; unset keys keep the
    # model's own values.
    class_regularization=config_dict.placeholder(bool),  # after every stage
    # Strength of Class Regularisation in each stage, from 1 (no effect) to 0.
    affection_rates=config_dict.placeholder(tuple),
    # Score of a class: 'sum', as in the thesis, or 'own' to each stage.
    regularization_score=config_dict.placeholder(str),
    dropout=config_dict.placeholder(float),
    local_ratio=config_dict.placeholder(float),  # MTConv's delta, in (0, 1]
    # MTConv's prolonged branch: 'avg', 'max', 'stochastic', 'softpool',
    # 'avg+cos' or 'softpool+cos'
    pooling=config_dict.placeholder(str),
    # False: each input of the prolonged branch keeps frames of its own.
    shared_selection=config_dict.placeholder(bool),
    # What the choice of kept frames depends on: 'branch', 'input', 'motion',
    # 'random' or 'every_second'; and whether they return to their own times.
    selection_input=config_dict.placeholder(str),
    keep_times=config_dict.placeholder(bool),
    # 'split': each branch of an MTConv reads its own share of the channels.
    branch_inputs=config_dict.placeholder(str),
    # False: MTNet's kernels see one frame at a time, as a control.
    temporal_kernels=config_dict.placeholder(bool),
    # True: MTNet pads clips in time by their end frames instead of zeros.
    repeat_edges=config_dict.placeholder(bool),
    # MTNet: Squeeze and Recursion in every block.
    recurrence=config_dict.placeholder(bool),
    # MTNet: squeeze-and-excitation in every other block, as in X3D.
    squeeze_excitation=config_dict.placeholder(bool),
    cell=config_dict.placeholder(str),  # gru, lstm, peephole_lstm or rnn
    # Bottleneck ResNets: the kind of convolution in the middle of a block.
    middle=config_dict.placeholder(str),
    placement=config_dict.placeholder(str),  # SRTG: its place in a block
    gate=config_dict.placeholder(bool),  # SRTG: the cycle-consistency gate
    # SRTG: the embedding that the gate compares pooled activations with:
    # 'hidden', 'fused' or 'normalized'.
    gate_embedding=config_dict.placeholder(str),
    # The number of recurrent layers of Squeeze and Recursion.
    recurrent_layers=config_dict.placeholder(int),
    # MTNet: groups of the 3x3x3 convolution of each branch; 0: one per channel.
    separated_groups=config_dict.placeholder(int),
    stage_features=config_dict.placeholder(tuple),  # 3-D ResNets: widths
    norm_epsilon=config_dict.placeholder(float),  # BN adds it to variances
    # SlowFast: the frames of the slow pathway, 'linspace' or 'nearest'; the
    # frames that the kernels of lateral connections see; and whether BN and
    # ReLU follow these connections.
    slow_frames=config_dict.placeholder(str),
    lateral_frames=config_dict.placeholder(int),
    lateral_norm=config_dict.placeholder(bool),
    stem_pool=config_dict.placeholder(bool),  # max-pool after the stem
    # 3-D ResNets: residual connections that change shape have weights.
    project_shortcuts=config_dict.placeholder(bool),
    # Bottleneck ResNets: the last BN of each block starts with a scale of 0.
    zero_init_residual=config_dict.placeholder(bool),
    # X3D: BN follows projections that keep their width, too.
    norm_all_shortcuts=config_dict.placeholder(bool),
    # Mean and deviation that pixels are normalized by: a number per channel, in
    # units of [0, 1] brightness.
    input_mean=config_dict.placeholder(tuple),
    input_std=config_dict.placeholder(tuple),
  )

  config.optim = _section(
    name='sgd',  # or 'adamw'
    schedule='cosine',  # from the peak to 0; or 'step'
    learning_rate=0.1,  # peak for `reference_batch`; grows with the batch
    reference_batch=64,  # clips per step
    warmup_steps=0,  # steps in which the rate grows linearly from 0
    milestones=(),  # epochs at which 'step' multiplies by `decay`
    decay=0.1,
    momentum=0.9,  # momentum of sgd, beta 1 of adamw
    second_momentum=0.999,  # beta 2 of adamw
    weight_decay=5e-5,  # for kernels only; adamw needs a larger one
    # The gradient is scaled down to this global norm; 0: no limit.
    clip_norm=0.0,
    # Decay of a moving average of the weights, for instance 0.999. The average
    # is validated, evaluated and exported. 0: no average.
    ema_decay=0.0,
    label_smoothing=0.0,  # share of a label spread over all classes
    backbone_rate=1.0,  # factor of the rate for all but the classifier
    # What is trained: 'all', or on the weights of `train.init_from` only the
    # 'classifier' or the maps of 'class_regularization'; BN then keeps its
    # statistics.
    trained='all',
  )

  config.train = _section(
    batch_size=64,  # clips per step, over all devices
    accumulate=1,  # steps whose mean gradient makes one update
    num_epochs=400.0,
    num_steps=0,  # 0: as many as num_epochs asks for
    # Multigrid: the shape of a batch changes with the step at equal b·t·h·w.
    long_cycle=False,  # four shapes per epoch: many small clips first
    short_cycle=False,  # three shapes, step by step
    # Workdir from whose best checkpoint a new run takes its weights; or
    # WORKDIR/checkpoints/STEP.
    init_from='',
    gate_after=0,  # steps in which SRTG's gates measure but do not act
    # Weight in the loss of Class Regularisation's early predictions; the thesis
    # leaves them out on purpose.
    regularization_loss=0.0,
    norm_batch_size=0,  # clips that share BN statistics; 0: those of a device
    freeze_norm=False,  # BN keeps its statistics from `init_from`
    precise_norm_steps=0,  # batches to measure BN by; 0: moving averages
    log_every=50,  # steps between log lines
    eval_every=1_000,  # steps between validations, with one view per video
    checkpoint_every=500,  # steps between checkpoints
    validation_split='val',  # '': no validation
    # Validations without a better top-1 after which training ends; 0: no limit.
    patience=0,
    # False: on a full disk, a single process warns and trains on.
    stop_if_unsaved=True,
    stall_timeout=600,  # seconds without a batch or a step that end the run
    # Folder that keeps compiled programs for the next start, perhaps on a
    # bucket, gs://BUCKET/FOLDER; '': JAX_COMPILATION_CACHE_DIR, or none.
    compilation_cache='',
  )

  # The grid of devices, `data` times `fsdp`; data=0 follows from fsdp.
  config.mesh = _section(
    data=0,  # groups of devices; each group holds all parameters
    fsdp=1,  # devices in a group; each holds a share of the parameters
  )

  config.eval = _section(
    split='test',
    num_clips=10,  # temporal views per video
    num_crops=3,  # spatial views per clip, along the long side
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
