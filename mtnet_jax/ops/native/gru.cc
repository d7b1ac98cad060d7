// The GRU of the thesis (5.8-5.11) over all frames, float32. Arrays are (frames,
// clips, channels), gates z, r and the candidate; the state starts at zero.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "parallel.h"
#include "vectors.h"
#include "xla/ffi/api/ffi.h"

namespace mtnet {
namespace {

namespace ffi = xla::ffi;
using Array = ffi::Buffer<ffi::F32, 3>;
using Matrix = ffi::Buffer<ffi::F32, 2>;
using Output = ffi::Result<Array>;

// Clips that are multiplied at once, by a kernel that is read once.
constexpr int kClips = 4;

// The rows of consecutive clips, `width` apart.
template <typename T>
struct Rows {
  T* data;
  int64_t width;

  T* operator[](int64_t clip) const { return data + clip * width; }
  Rows From(int64_t clip) const { return {(*this)[clip], width}; }
  Rows<const T> Const() const { return {data, width}; }
};
using In = Rows<const float>;
using Out = Rows<float>;

// y[j] += Σ_k a[k] · kernel[k · stride + j] of CLIPS, k of h, j of `columns`.
template <int CLIPS>
void AddProductOf(In a, const float* kernel, int64_t h, int64_t columns,
                  int64_t stride, Out y) {
  int64_t k = 0;
  for (; k + 2 <= h; k += 2) {
    const float *row = kernel + k * stride, *next = row + stride;
    float factors[CLIPS][2];
    float* __restrict__ sums[CLIPS];
    for (int i = 0; i < CLIPS; ++i) {
      factors[i][0] = a[i][k];
      factors[i][1] = a[i][k + 1];
      sums[i] = y[i];
    }
#pragma GCC ivdep
    for (int64_t j = 0; j < columns; ++j) {
      for (int i = 0; i < CLIPS; ++i) {
        sums[i][j] += factors[i][0] * row[j] + factors[i][1] * next[j];
      }
    }
  }
  for (; k < h; ++k) {
    const float* row = kernel + k * stride;
    for (int i = 0; i < CLIPS; ++i) {
      for (int64_t j = 0; j < columns; ++j) y[i][j] += a[i][k] * row[j];
    }
  }
}

void AddProduct(int64_t clips, In a, const float* kernel, int64_t h,
                int64_t columns, int64_t stride, Out y) {
  int64_t i = 0;
  for (; i + kClips <= clips; i += kClips) {
    AddProductOf<kClips>(a.From(i), kernel, h, columns, stride, y.From(i));
  }
  for (; i < clips; ++i) {
    AddProductOf<1>(a.From(i), kernel, h, columns, stride, y.From(i));
  }
}

// y[k] += Σ_j a[j] · kernel[k · stride + j].
template <int CLIPS>
void AddTransposedOf(In a, const float* kernel, int64_t h, int64_t columns,
                     int64_t stride, Out y) {
  for (int64_t k = 0; k < h; ++k) {
    const float* row = kernel + k * stride;
    Vector<kLanes> parts[CLIPS] = {};
    int64_t j = 0;
    for (; j + kLanes <= columns; j += kLanes) {
      const Vector<kLanes> factor = Load<kLanes>(row + j);
      for (int i = 0; i < CLIPS; ++i) {
        parts[i] += Load<kLanes>(a[i] + j) * factor;
      }
    }
    for (int i = 0; i < CLIPS; ++i) {
      float sum = 0;
      for (int lane = 0; lane < kLanes; ++lane) sum += parts[i][lane];
      for (int64_t rest = j; rest < columns; ++rest) {
        sum += a[i][rest] * row[rest];
      }
      y[i][k] += sum;
    }
  }
}

void AddTransposed(int64_t clips, In a, const float* kernel, int64_t h,
                   int64_t columns, int64_t stride, Out y) {
  int64_t i = 0;
  for (; i + kClips <= clips; i += kClips) {
    AddTransposedOf<kClips>(a.From(i), kernel, h, columns, stride, y.From(i));
  }
  for (; i < clips; ++i) {
    AddTransposedOf<1>(a.From(i), kernel, h, columns, stride, y.From(i));
  }
}

inline float Sigmoid(float x) {
  const float e = ExpOfNegative(x > 0 ? -x : x);
  return (x > 0 ? 1.0f : e) / (1.0f + e);
}

inline float Tanh(float x) {
  const float e = ExpOfNegative(x > 0 ? -2 * x : 2 * x);
  const float y = (1.0f - e) / (1.0f + e);
  return x > 0 ? y : -y;
}

// What a step works with: the recurrent kernel, the states before it, and room
// for a row a clip.
struct Step {
  int64_t clips, h;
  const float* kernel;
  In before;
  Out scratch;
};

// Gates hold what they get of the frame itself, and become what they are.
void StepForward(const Step& step, Out gates, Out state) {
  const int64_t h = step.h;
  AddProduct(step.clips, step.before, step.kernel, h, 2 * h, 3 * h, gates);
  for (int64_t clip = 0; clip < step.clips; ++clip) {
    const float* __restrict__ before = step.before[clip];
    float* __restrict__ zr = gates[clip];
    float* __restrict__ product = step.scratch[clip];
    for (int64_t i = 0; i < 2 * h; ++i) zr[i] = Sigmoid(zr[i]);
    for (int64_t i = 0; i < h; ++i) product[i] = zr[h + i] * before[i];
  }
  AddProduct(step.clips, step.scratch.Const(), step.kernel + 2 * h, h, h,
             3 * h, {gates.data + 2 * h, gates.width});
  for (int64_t clip = 0; clip < step.clips; ++clip) {
    const float* __restrict__ before = step.before[clip];
    const float* __restrict__ z = gates[clip];
    float* __restrict__ candidate = gates[clip] + 2 * h;
    float* __restrict__ to = state[clip];
    for (int64_t i = 0; i < h; ++i) {
      candidate[i] = Tanh(candidate[i]);
      to[i] = z[i] * before[i] + (1 - z[i]) * candidate[i];
    }
  }
}

// From the states' gradients, `d`, those of the gates' arguments; `d` becomes
// that of the states before.
void StepBackward(const Step& step, In gates, Out d_gates, Out d) {
  const int64_t h = step.h;
  for (int64_t clip = 0; clip < step.clips; ++clip) {
    const float* __restrict__ before = step.before[clip];
    const float *z = gates[clip], *candidate = z + 2 * h;
    float* __restrict__ dz = d_gates[clip];
    float* __restrict__ dc = d_gates[clip] + 2 * h;
    float* __restrict__ dh = d[clip];
    for (int64_t i = 0; i < h; ++i) {
      dz[i] = dh[i] * (before[i] - candidate[i]) * z[i] * (1 - z[i]);
      dc[i] = dh[i] * (1 - z[i]) * (1 - candidate[i] * candidate[i]);
      dh[i] *= z[i];
    }
    std::fill_n(step.scratch[clip], h, 0.0f);
  }
  const Out d_candidate{d_gates.data + 2 * h, d_gates.width};
  AddTransposed(step.clips, d_candidate.Const(), step.kernel + 2 * h, h, h,
                3 * h, step.scratch);
  for (int64_t clip = 0; clip < step.clips; ++clip) {
    const float* __restrict__ before = step.before[clip];
    const float *r = gates[clip] + h, *product = step.scratch[clip];
    float* __restrict__ dr = d_gates[clip] + h;
    float* __restrict__ dh = d[clip];
    for (int64_t i = 0; i < h; ++i) {
      dr[i] = product[i] * before[i] * r[i] * (1 - r[i]);
      dh[i] += product[i] * r[i];
    }
  }
  AddTransposed(step.clips, d_gates.Const(), step.kernel, h, 2 * h, 3 * h, d);
}

// Clips [begin, end) of an array at frame t.
template <typename T>
Rows<T> At(T* data, int64_t t, int64_t clips, int64_t begin, int64_t width) {
  return {data + (t * clips + begin) * width, width};
}

// As many clips for each thread.
int64_t Share(ffi::ThreadPool& pool, int64_t clips) {
  const int64_t threads = std::max<int64_t>(pool.num_threads(), 1);
  return (clips + threads - 1) / threads;
}

// Hidden states and gates, of what each gate gets of the frames themselves.
ffi::Error Forward(ffi::ThreadPool pool, Array inputs, Matrix kernel,
                   Output hidden, Output gates) {
  const auto d = inputs.dimensions();
  const int64_t t = d[0], n = d[1], h = kernel.dimensions()[0];
  std::copy_n(inputs.typed_data(), inputs.element_count(),
              gates->typed_data());
  ParallelFor(pool, n, Share(pool, n), [&](int64_t begin, int64_t end) {
    const int64_t clips = end - begin;
    std::vector<float> zeros(clips * h), scratch(clips * h);
    Step step{clips, h, kernel.typed_data(), {zeros.data(), h},
              {scratch.data(), h}};
    for (int64_t i = 0; i < t; ++i) {
      const Out state = At(hidden->typed_data(), i, n, begin, h);
      StepForward(step, At(gates->typed_data(), i, n, begin, 3 * h), state);
      step.before = state.Const();
    }
  });
  return ffi::Error::Success();
}

// The gradients of the gates' arguments, and so of `inputs`.
ffi::Error Backward(ffi::ThreadPool pool, Array d_hidden, Array hidden,
                    Array gates, Matrix kernel, Output d_inputs) {
  const auto dimensions = hidden.dimensions();
  const int64_t t = dimensions[0], n = dimensions[1], h = dimensions[2];
  ParallelFor(pool, n, Share(pool, n), [&](int64_t begin, int64_t end) {
    const int64_t clips = end - begin;
    std::vector<float> zeros(clips * h), scratch(clips * h), d(clips * h);
    for (int64_t i = t - 1; i >= 0; --i) {
      const float* from = At(d_hidden.typed_data(), i, n, begin, h).data;
      for (int64_t k = 0; k < clips * h; ++k) d[k] += from[k];
      Step step{clips, h, kernel.typed_data(), {zeros.data(), h},
                {scratch.data(), h}};
      if (i) step.before = At(hidden.typed_data(), i - 1, n, begin, h).Const();
      StepBackward(step, At(gates.typed_data(), i, n, begin, 3 * h).Const(),
                   At(d_inputs->typed_data(), i, n, begin, 3 * h),
                   {d.data(), h});
    }
  });
  return ffi::Error::Success();
}

const auto kForward = [] {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<Array>()
      .Arg<Matrix>()
      .Ret<Array>()
      .Ret<Array>();
};

const auto kBackward = [] {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<Array>()
      .Arg<Array>()
      .Arg<Array>()
      .Arg<Matrix>()
      .Ret<Array>();
};

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(gru_forward, Forward, kForward());
XLA_FFI_DEFINE_HANDLER_SYMBOL(gru_backward, Backward, kBackward());

}  // namespace mtnet
