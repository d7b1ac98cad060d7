// Sums over positions, and over all parameters.

#include "sums.h"

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
using Output = ffi::Result<Matrix>;

ffi::Error Sums(ffi::ThreadPool pool, Array x, Output sums) {
  const auto d = x.dimensions();
  const int64_t c = d[2];
  float* to = sums->typed_data();
  SumAll(pool, Value{x.typed_data()}, d[0], d[1], c,
         [&](int64_t group, const double* total) {
           std::copy_n(total, c, to + group * c);
         });
  return ffi::Error::Success();
}

// The gradients of gain and offset, of activation(gain · x + offset).
ffi::Error ScaleGradient(ffi::ThreadPool pool, Array x, Array dy, Matrix gain,
                         Matrix offset, int64_t activation, Output d_gain,
                         Output d_offset) {
  const auto d = x.dimensions();
  const int64_t c = d[2];
  float *to_gain = d_gain->typed_data(), *to_offset = d_offset->typed_data();
  ByActivation(activation, [&](auto terms) {
    terms.Read(x, dy, gain, offset);
    SumAll(pool, terms, d[0], d[1], c, [&](int64_t group, const double* total) {
      std::copy_n(total, c, to_gain + group * c);
      std::copy_n(total + c, c, to_offset + group * c);
    });
  });
  return ffi::Error::Success();
}

// The sum of the squares of all elements of any number of arrays.
ffi::Error SquareSum(ffi::ThreadPool pool, ffi::RemainingArgs arrays,
                     ffi::Result<ffi::BufferR0<ffi::F32>> sum) {
  std::vector<double> sums(arrays.size());
  ParallelFor(pool, arrays.size(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto array = arrays.get<ffi::Buffer<ffi::F32>>(i).value();
      const float* x = array.typed_data();
      for (int64_t left = array.element_count(); left > 0; left -= kFloatsOfPiece) {
        float part[kLanes] = {};
        const int64_t count = std::min(left, kFloatsOfPiece);
        for (int64_t j = 0; j + kLanes <= count; j += kLanes) {
          for (int k = 0; k < kLanes; ++k) part[k] += x[j + k] * x[j + k];
        }
        for (int64_t j = count / kLanes * kLanes; j < count; ++j) {
          part[0] += x[j] * x[j];
        }
        for (int k = 0; k < kLanes; ++k) sums[i] += part[k];
        x += count;
      }
    }
  });
  double total = 0;
  for (double part : sums) total += part;
  *sum->typed_data() = total;
  return ffi::Error::Success();
}

const auto kSums = [] {
  return ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Array>().Ret<Matrix>();
};

const auto kScaleGradient = [] {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<Array>()
      .Arg<Array>()
      .Arg<Matrix>()
      .Arg<Matrix>()
      .Attr<int64_t>("activation")
      .Ret<Matrix>()
      .Ret<Matrix>();
};

const auto kSquareSum = [] {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .RemainingArgs()
      .Ret<ffi::BufferR0<ffi::F32>>();
};

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(sums, Sums, kSums());
XLA_FFI_DEFINE_HANDLER_SYMBOL(scale_gradient, ScaleGradient,
                              kScaleGradient());
XLA_FFI_DEFINE_HANDLER_SYMBOL(square_sum, SquareSum, kSquareSum());

}  // namespace mtnet
