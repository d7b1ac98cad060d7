// The frames of each clip with the lowest triplet cosines (the thesis,
// 5.6-5.7).

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include "sums.h"
#include "xla/ffi/api/ffi.h"

namespace mtnet {
namespace {

namespace ffi = xla::ffi;
using Array = ffi::Buffer<ffi::F32, 5>;
using Indices = ffi::Buffer<ffi::S32, 2>;

// The cosine of every frame's mean (c) with the next one's; norms are held above
// a least one.
std::vector<double> Cosines(const double* means, int64_t t, int64_t c,
                            double min_norm) {
  std::vector<double> norms(t), cosines(t - 1);
  for (int64_t i = 0; i < t; ++i) {
    const double* v = means + i * c;
    norms[i] = std::sqrt(std::inner_product(v, v + c, v, 0.0));
    norms[i] = std::max(norms[i], min_norm);
  }
  for (int64_t i = 0; i + 1 < t; ++i) {
    const double* v = means + i * c;
    cosines[i] =
        std::inner_product(v, v + c, v + c, 0.0) / (norms[i] * norms[i + 1]);
  }
  return cosines;
}

ffi::Error Select(ffi::ThreadPool pool, Array x, float min_norm,
                  ffi::Result<Indices> indices) {
  const auto d = x.dimensions();
  const int64_t n = d[0], t = d[1], rows = d[2] * d[3], c = d[4];
  const int64_t keep = indices->dimensions()[1];
  std::vector<double> means(n * t * c);
  SumAll(pool, Value{x.typed_data()}, n * t, rows, c,
         [&](int64_t frame, const double* sums) {
    for (int64_t i = 0; i < c; ++i) means[frame * c + i] = sums[i] / rows;
  });
  for (int64_t clip = 0; clip < n; ++clip) {
    std::vector<float> scores(t);
    if (t > 1) {
      const auto cosines = Cosines(means.data() + clip * t * c, t, c, min_norm);
      for (int64_t i = 0; i < t; ++i) {
        const double before = cosines[std::max<int64_t>(i - 1, 0)];
        const double after = cosines[std::min<int64_t>(i, t - 2)];
        scores[i] = before + after;
        // What is no number goes last.
        if (std::isnan(scores[i])) scores[i] = INFINITY;
      }
    }
    std::vector<int32_t> order(t);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return scores[a] < scores[b];
    });
    std::sort(order.begin(), order.begin() + keep);
    std::copy_n(order.begin(), keep, indices->typed_data() + clip * keep);
  }
  return ffi::Error::Success();
}

const auto kBinding = [] {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<Array>()
      .Attr<float>("min_norm")
      .Ret<Indices>();
};

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(select_frames, Select, kBinding());

}  // namespace mtnet
