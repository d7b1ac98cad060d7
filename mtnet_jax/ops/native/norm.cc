// Batch normalization in training: statistics of groups of clips, and what its
// gradient needs of them.

#include <cmath>
#include <cstdint>

#include "sums.h"
#include "xla/ffi/api/ffi.h"

namespace mtnet {
namespace {

namespace ffi = xla::ffi;
using Array = ffi::Buffer<ffi::F32, 3>;   // groups, rows, channels
using Matrix = ffi::Buffer<ffi::F32, 2>;  // groups, channels
using Vector1 = ffi::Buffer<ffi::F32, 1>;
using MatrixOut = ffi::Result<Matrix>;
using VectorOut = ffi::Result<Vector1>;

// Mean and variance, and the gain and offset with which x is normalized.
ffi::Error Forward(ffi::ThreadPool pool, Array x, Vector1 scale, Vector1 bias,
                   Matrix near, float epsilon, MatrixOut mean, MatrixOut variance,
                   MatrixOut gain, MatrixOut offset) {
  const auto d = x.dimensions();
  const int64_t rows = d[1], c = d[2];
  const DifferenceAndSquare terms{x.typed_data(), near.typed_data()};
  SumAll(pool, terms, d[0], rows, c, [&](int64_t group, const double* sums) {
    for (int64_t i = 0; i < c; ++i) {
      const int64_t to = group * c + i;
      const double first = sums[i] / rows;
      const double m = near.typed_data()[to] + first;
      // May come out just below zero for a constant channel.
      const double v = std::max(sums[c + i] / rows - first * first, 0.0);
      const double g = scale.typed_data()[i] / std::sqrt(v + epsilon);
      mean->typed_data()[to] = m;
      variance->typed_data()[to] = v;
      gain->typed_data()[to] = g;
      offset->typed_data()[to] = bias.typed_data()[i] - m * g;
    }
  });
  return ffi::Error::Success();
}

// With d = dy · activation'(gain · x + offset), x's gradient is
// gain · d + slope · x + shift.
ffi::Error Backward(ffi::ThreadPool pool, Array x, Array dy, Matrix mean,
                    Matrix variance, Matrix gain, Matrix offset, float epsilon,
                    int64_t activation, MatrixOut slope, MatrixOut shift,
                    VectorOut d_scale, VectorOut d_bias) {
  const auto d = x.dimensions();
  const int64_t rows = d[1], c = d[2];
  std::vector<double> total_scale(c), total_bias(c);
  ByActivation(activation, [&](auto terms) {
    terms.Read(x, dy, gain, offset);
    SumAll(pool, terms, d[0], rows, c, [&](int64_t group, const double* sums) {
      for (int64_t i = 0; i < c; ++i) {
        const int64_t at = group * c + i;
        const double m = mean.typed_data()[at], v = variance.typed_data()[at];
        const double g = gain.typed_data()[at];
        const double deviation = std::sqrt(v + epsilon);
        // Of d and the normalized x.
        const double product = (sums[i] - m * sums[c + i]) / deviation;
        const double s = v > 0 ? -g * product / deviation / rows : 0;
        slope->typed_data()[at] = s;
        shift->typed_data()[at] = -g * sums[c + i] / rows - s * m;
        total_scale[i] += product;
        total_bias[i] += sums[c + i];
      }
    });
  });
  std::copy_n(total_scale.data(), c, d_scale->typed_data());
  std::copy_n(total_bias.data(), c, d_bias->typed_data());
  return ffi::Error::Success();
}

const auto kForward = [] {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<Array>()
      .Arg<Vector1>()
      .Arg<Vector1>()
      .Arg<Matrix>()
      .Attr<float>("epsilon")
      .Ret<Matrix>()
      .Ret<Matrix>()
      .Ret<Matrix>()
      .Ret<Matrix>();
};

const auto kBackward = [] {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<Array>()
      .Arg<Array>()
      .Arg<Matrix>()
      .Arg<Matrix>()
      .Arg<Matrix>()
      .Arg<Matrix>()
      .Attr<float>("epsilon")
      .Attr<int64_t>("activation")
      .Ret<Matrix>()
      .Ret<Matrix>()
      .Ret<Vector1>()
      .Ret<Vector1>();
};

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(norm_forward, Forward, kForward());
XLA_FFI_DEFINE_HANDLER_SYMBOL(norm_backward, Backward, kBackward());

}  // namespace mtnet
