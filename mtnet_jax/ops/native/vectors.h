// Vectors of the processor's width, and what is done with them.
#ifndef MTNET_JAX_NATIVE_VECTORS_H_
#define MTNET_JAX_NATIVE_VECTORS_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#define MTNET_INLINE static inline __attribute__((always_inline))

namespace mtnet {

// Floats that a register holds.
#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

template <int V>
struct VectorOf {
  typedef float type __attribute__((vector_size(4 * V)));
};
template <int V>
using Lanes = std::integral_constant<int, V>;
template <int V>
using Vector = typename VectorOf<V>::type;

template <int V>
MTNET_INLINE Vector<V> Load(const float* from) {
  Vector<V> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <int V>
MTNET_INLINE void Store(float* to, Vector<V> v) {
  std::memcpy(to, &v, sizeof v);
}

// Keeps a value in a register: compilers would rather load it again at each
// use, and unaligned loads are what is scarce.
template <typename T>
MTNET_INLINE void Keep(T& v) {
#if defined(__x86_64__) && defined(__AVX__)
  if constexpr (sizeof v > sizeof(float)) asm("" : "+v"(v));
#elif defined(__aarch64__)
  if constexpr (sizeof v > sizeof(float)) asm("" : "+w"(v));
#endif
}

// Calls f(lanes, channel) for blocks of c channels, V of them or half as many
// at the end, which may overlap. V is at most c.
template <int V, typename F>
MTNET_INLINE void ForChannels(int64_t c, const F& f) {
  int64_t channel = 0;
  for (; channel + V <= c; channel += V) f(Lanes<V>{}, channel);
  if (channel == c) return;
  if constexpr (V >= 4) {
    if (c - channel <= V / 2) return f(Lanes<V / 2>{}, c - V / 2);
  }
  f(Lanes<V>{}, c - V);
}

// Calls f<V> with the lanes that c channels fill.
#define MTNET_BY_CHANNELS(c, f, ...) \
  if ((c) >= kLanes) {               \
    f<kLanes>(__VA_ARGS__);          \
  } else if ((c) >= 4) {             \
    f<4>(__VA_ARGS__);               \
  } else {                           \
    f<1>(__VA_ARGS__);               \
  }

// exp(x) of x <= 0, within two units in the last place; below -87 as at -87.
// Of a float, or of a vector of them and integers of the same size. Polynomial
// and constants: S. L. Moshier, Cephes, expf.
template <typename Float, typename Int>
MTNET_INLINE Float ExpOfNegativeAs(Float x) {
  x = x < -87.0f ? Float{} - 87.0f : x;
  // n = round(x / ln 2): added to so large a number, it stands in its last
  // bits, with 127 more, as an exponent has them.
  const Float shifted = x * 1.44269504f + 12583039.0f;
  const Float n = shifted - 12583039.0f;
  const Float r = x - n * 0.693359375f + n * 2.12194440e-4f;
  Float p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + (r + 1.0f);
  Int bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits <<= 23;
  Float scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return p * scale;
}

template <int V>
MTNET_INLINE Vector<V> ExpOfNegative(Vector<V> x) {
  typedef uint32_t Ints __attribute__((vector_size(4 * V)));
  return ExpOfNegativeAs<Vector<V>, Ints>(x);
}

MTNET_INLINE float ExpOfNegative(float x) {
  return ExpOfNegativeAs<float, uint32_t>(x);
}

}  // namespace mtnet

#endif  // MTNET_JAX_NATIVE_VECTORS_H_
