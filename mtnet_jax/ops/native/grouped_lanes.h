// The features of grouped convolutions in the lanes of registers.
//
// A register has features of one group, and each value of the input is copied
// to all lanes. Where groups of four channels give as many features, it has
// those of several groups, and a value is copied to its own group's lanes.
#ifndef MTNET_JAX_NATIVE_GROUPED_LANES_H_
#define MTNET_JAX_NATIVE_GROUPED_LANES_H_

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "parallel.h"
#include "vectors.h"
#include "xla/ffi/api/ffi.h"

namespace mtnet {

// Channels of the groups that share a register.
constexpr int kSmallGroup = 4;

template <int D, int J, int... L>
MTNET_INLINE auto ValueOf(const float* x, std::integer_sequence<int, L...>) {
  constexpr int V = sizeof...(L);
  if constexpr (D == 0) {
    const float value = x[J];
    return Vector<V>{(void(L), value)...};
  } else {
    const Vector<V> values = Load<V>(x);
    return Vector<V>{values[L / D * D + J]...};
  }
}

// For the lanes of V features, the J-th channel that each sees from `x` on. D
// is how many channels a group has that shares a register; 0: none does.
template <int V, int D, int J>
MTNET_INLINE Vector<V> Value(const float* x) {
  return ValueOf<D, J>(x, std::make_integer_sequence<int, V>{});
}

// Calls f(J) for J of [0, N), constants.
template <typename F, int... J>
MTNET_INLINE void ForConstants(const F& f, std::integer_sequence<int, J...>) {
  (f(Lanes<J>{}), ...);
}
template <int N, typename F>
MTNET_INLINE void ForConstants(const F& f) {
  ForConstants(f, std::make_integer_sequence<int, N>{});
}

// Calls f(J, channel) for d channels: the J-th from that one on.
template <int D, typename F>
MTNET_INLINE void ForInputs(int64_t d, const F& f) {
  if constexpr (D > 0) {
    ForConstants<D>([&](auto j) __attribute__((always_inline)) { f(j, 0); });
  } else {
    for (int64_t j = 0; j < d; ++j) f(Lanes<0>{}, j);
  }
}

// A convolution of rows of w columns of c channels to z of f features, of which
// a group has d and e. A kernel has `lanes` floats for each channel; `column`
// leads from one of its columns to the next, perhaps backwards.
struct Line {
  int64_t w, c, z, f, d, e, lanes, column;
};

// What is computed at once: `count` features from `feature` on, which are from
// `lane` on in the kernel and see channels from `channel` on.
struct Place {
  int64_t channel, feature, lane, count;
};

template <int V>
MTNET_INLINE void StoreSome(float* to, Vector<V> v, int64_t count) {
  if (count == V) return Store<V>(to, v);
  for (int64_t i = 0; i < count; ++i) to[i] = v[i];
}

// Units of features are a group, or as many groups as share a register.
inline bool ShareRegisters(const Line& line) {
  return line.d == kSmallGroup && line.e == kSmallGroup && !(line.f % kLanes);
}

inline int64_t UnitSize(const Line& line) {
  return ShareRegisters(line) ? kLanes : line.e;
}

// The lanes that so many features fill, the last of them perhaps in part.
inline int64_t LanesOf(int64_t features) {
  const int64_t rest = features % kLanes;
  const int64_t last = rest <= 4 ? 4 : std::min(kLanes, rest <= 8 ? 8 : kLanes);
  return features - rest + (rest ? last : 0);
}

// Calls f(lanes, D, place) for all places of a unit.
template <typename F>
void ForPlaces(const Line& line, int64_t unit, const F& f) {
  if (ShareRegisters(line)) {
    const int64_t first = unit * kLanes;
    return f(Lanes<kLanes>{}, Lanes<kSmallGroup>{},
             Place{first, first, 0, kLanes});
  }
  const int64_t channel = unit * line.d, first = unit * line.e;
  int64_t lane = 0;
  for (; lane + kLanes <= line.e; lane += kLanes) {
    f(Lanes<kLanes>{}, Lanes<0>{}, Place{channel, first + lane, lane, kLanes});
  }
  const int64_t rest = line.e - lane;
  const Place last = {channel, first + lane, lane, rest};
  if (rest == 0) return;
  if (rest <= 4) return f(Lanes<4>{}, Lanes<0>{}, last);
  if (rest <= 8) return f(Lanes<std::min(8, kLanes)>{}, Lanes<0>{}, last);
  f(Lanes<kLanes>{}, Lanes<0>{}, last);
}

// A kernel of `taps` by units: the lanes of a unit's features for each of its
// channels, unit by unit. `at(tap, channel, feature)` is where one is.
template <typename F>
std::vector<float> Pack(xla::ffi::ThreadPool& pool, const float* kernel,
                        int64_t taps, const Line& line, const F& at) {
  const int64_t size = UnitSize(line), units = line.f / size;
  std::vector<float> packed(units * taps * line.d * line.lanes);
  ParallelFor(pool, units, 1, [&](int64_t begin, int64_t end) {
    float* to = packed.data() + begin * taps * line.d * line.lanes;
    for (int64_t unit = begin; unit < end; ++unit) {
      for (int64_t i = 0; i < taps * line.d; ++i, to += line.lanes) {
        for (int64_t j = 0; j < size; ++j) {
          to[j] = kernel[at(i / line.d, i % line.d, unit * size + j)];
        }
      }
    }
  });
  return packed;
}

}  // namespace mtnet

#endif  // MTNET_JAX_NATIVE_GROUPED_LANES_H_
