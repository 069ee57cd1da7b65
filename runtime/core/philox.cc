#include "runtime/core/philox.h"

#include <cmath>
#include <numbers>

#include "Random123/philox.h"

namespace trireme {
namespace {

std::array<uint32_t, 4> Philox(std::array<uint32_t, 4> counter,
                               std::array<uint32_t, 2> key) {
  const r123::Philox4x32 generator;
  const r123::Philox4x32::ctr_type result = generator(
      {{counter[0], counter[1], counter[2], counter[3]}}, {{key[0], key[1]}});
  return {result[0], result[1], result[2], result[3]};
}

uint32_t Low(uint64_t value) { return static_cast<uint32_t>(value); }
uint32_t High(uint64_t value) { return static_cast<uint32_t>(value >> 32); }

// (0, 1], so that its logarithm is finite.
double OpenUniform(uint32_t word) { return (word + 1.0) * 0x1p-32; }

// Box-Muller: words 2k and 2k+1 give normals 2k and 2k+1.
std::array<double, 2> NormalPair(uint32_t a, uint32_t b) {
  const double radius = std::sqrt(-2.0 * std::log(OpenUniform(a)));
  const double angle = 2.0 * std::numbers::pi * (b * 0x1p-32);
  return {radius * std::cos(angle), radius * std::sin(angle)};
}

using Words = std::array<uint32_t, 4>;
using Values = std::array<double, 4>;

template <typename F>
Values Map(const Words& words, F&& f) {
  return {f(words[0]), f(words[1]), f(words[2]), f(words[3])};
}

Values NormalsOf(const Words& words) {
  const auto [a, b] = NormalPair(words[0], words[1]);
  const auto [c, d] = NormalPair(words[2], words[3]);
  return {a, b, c, d};
}

template <typename T, typename F>
void FillByBlocks(const RandomStream& stream, uint64_t first, std::span<T> out,
                  F&& values_of) {
  size_t done = 0;
  while (done < out.size()) {
    const uint64_t index = first + done;
    const Values values = values_of(stream.Block(index / 4));
    for (uint64_t i = index % 4; i < 4 && done < out.size(); ++i) {
      out[done++] = static_cast<T>(values[i]);
    }
  }
}

}  // namespace

RandomStream::RandomStream(const RandomKey& key) {
  // The step is mixed into the key by one Philox call: 128 counter bits hold
  // element, sample, layer and purpose but not the step as well.
  const std::array<uint32_t, 4> mixed =
      Philox({Low(key.step), High(key.step), 0x73746570u, 0u},
             {Low(key.seed), High(key.seed)});
  key_ = {mixed[0], mixed[1]};
  counter_ = {Low(key.sample), High(key.sample),
              (static_cast<uint32_t>(key.purpose) << 16) | key.layer};
}

std::array<uint32_t, 4> RandomStream::Block(uint64_t block) const {
  const std::array<uint32_t, 4> counter = {Low(block), counter_[0], counter_[1],
                                           counter_[2]};
  if (High(block) == 0) return Philox(counter, key_);
  // The counter has no room for more blocks than 2^32: each further 2^32 has a
  // key of its own.
  const std::array<uint32_t, 4> mixed =
      Philox({High(block), 0, 0x626c6f63u, 0}, key_);
  return Philox(counter, {mixed[0], mixed[1]});
}

uint64_t RandomStream::Bits(uint64_t index) const {
  const std::array<uint32_t, 4> words = Block(index / 2);
  const int at = static_cast<int>(index % 2) * 2;
  return (static_cast<uint64_t>(words[at + 1]) << 32) | words[at];
}

double RandomStream::Uniform(uint64_t index) const {
  return Block(index / 4)[index % 4] * 0x1p-32;
}

double RandomStream::Normal(uint64_t index) const {
  const std::array<uint32_t, 4> words = Block(index / 4);
  const int pair = static_cast<int>(index % 4) / 2;
  return NormalPair(words[2 * pair], words[2 * pair + 1])[index % 2];
}

void RandomStream::FillNormal(uint64_t first, std::span<float> out) const {
  FillByBlocks(*this, first, out, NormalsOf);
}

void RandomStream::FillNormal(uint64_t first, std::span<double> out) const {
  FillByBlocks(*this, first, out, NormalsOf);
}

void RandomStream::FillUniform(uint64_t first, std::span<float> out) const {
  // 24 bits: rounding to float must not give 1.
  FillByBlocks(*this, first, out, [](const Words& words) {
    return Map(words, [](uint32_t word) { return (word >> 8) * 0x1p-24; });
  });
}

void RandomStream::FillUniform(uint64_t first, std::span<double> out) const {
  FillByBlocks(*this, first, out, [](const Words& words) {
    return Map(words, [](uint32_t word) { return word * 0x1p-32; });
  });
}

uint64_t StableHash(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (const char c : name) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  }
  return hash;
}

}  // namespace trireme
