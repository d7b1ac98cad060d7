// Trilinear interpolation to more frames, rows and columns, and its transpose,
// float32, channels last.
//
// Centers lie half a step from the edges; beyond the outermost centers the
// nearest value holds.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "parallel.h"
#include "xla/ffi/api/ffi.h"

namespace mtnet {
namespace {

namespace ffi = xla::ffi;
using Array = ffi::Buffer<ffi::F32, 5>;
using Output = ffi::Result<Array>;

// An element of a sum: where it is, and its weight.
struct Term {
  int64_t at;
  float weight;
};
// The terms of each position of one axis.
using Axis = std::vector<std::vector<Term>>;

// What each of `large` positions takes of `small` ones.
Axis Interpolated(int64_t small, int64_t large) {
  Axis axis(large);
  for (int64_t i = 0; i < large; ++i) {
    const double at =
        std::max(0.0, (i + 0.5) * small / large - 0.5);
    const int64_t first = std::min<int64_t>(at, small - 1);
    const float share = first + 1 < small ? at - first : 0;
    axis[i].push_back({first, 1 - share});
    if (share > 0) axis[i].push_back({first + 1, share});
  }
  return axis;
}

// What each of the other side's positions sends back.
Axis Transposed(const Axis& axis, int64_t size) {
  Axis transposed(size);
  for (size_t i = 0; i < axis.size(); ++i) {
    for (const Term& term : axis[i]) {
      transposed[term.at].push_back({static_cast<int64_t>(i), term.weight});
    }
  }
  return transposed;
}

// y[n, i, j, k] = Σ x[n, t, h, w] over the terms of i, j and k.
void Apply(ffi::ThreadPool& pool, const Array& x, const Axis& frames,
           const Axis& rows, const Axis& columns, Output& y) {
  const auto d = x.dimensions();
  const int64_t t = d[1], h = d[2], w = d[3], c = d[4];
  const int64_t u = frames.size(), v = rows.size(), z = columns.size();
  const float* x_data = x.typed_data();
  float* y_data = y->typed_data();
  ParallelFor(pool, d[0] * u * v, 1 + 4096 / (std::max(w, z) * c),
              [&](int64_t begin, int64_t end) {
    std::vector<float> mixed(w * c);
    for (int64_t i = begin; i < end; ++i) {
      std::fill(mixed.begin(), mixed.end(), 0.0f);
      float* __restrict__ to = mixed.data();
      for (const Term& frame : frames[i / v % u]) {
        for (const Term& row : rows[i % v]) {
          const float* from =
              x_data + ((i / v / u * t + frame.at) * h + row.at) * w * c;
          const float weight = frame.weight * row.weight;
          for (int64_t j = 0; j < w * c; ++j) to[j] += weight * from[j];
        }
      }
      for (int64_t k = 0; k < z; ++k) {
        float* __restrict__ out = y_data + (i * z + k) * c;
        std::fill_n(out, c, 0.0f);
        for (const Term& column : columns[k]) {
          const float* from = mixed.data() + column.at * c;
          for (int64_t j = 0; j < c; ++j) out[j] += column.weight * from[j];
        }
      }
    }
  });
}

ffi::Error Forward(ffi::ThreadPool pool, Array x, Output y) {
  const auto small = x.dimensions(), large = y->dimensions();
  Axis axes[3];
  for (int i = 0; i < 3; ++i) {
    axes[i] = Interpolated(small[i + 1], large[i + 1]);
  }
  Apply(pool, x, axes[0], axes[1], axes[2], y);
  return ffi::Error::Success();
}

ffi::Error Backward(ffi::ThreadPool pool, Array dy, Output dx) {
  const auto small = dx->dimensions(), large = dy.dimensions();
  Axis axes[3];
  for (int i = 0; i < 3; ++i) {
    const int64_t size = small[i + 1];
    axes[i] = Transposed(Interpolated(size, large[i + 1]), size);
  }
  Apply(pool, dy, axes[0], axes[1], axes[2], dx);
  return ffi::Error::Success();
}

const auto kBinding = [] {
  return ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Array>().Ret<Array>();
};

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(up_sample_forward, Forward, kBinding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(up_sample_backward, Backward, kBinding());

}  // namespace mtnet
