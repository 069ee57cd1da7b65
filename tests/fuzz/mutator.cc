#include "tests/fuzz/mutator.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>
#include <string_view>

namespace trireme {
namespace {

constexpr size_t kMostChanges = 8;
constexpr size_t kMostInserted = 64;

constexpr std::array<uint64_t, 14> kBounds = {0,
                                              1,
                                              0x7F,
                                              0x80,
                                              0xFF,
                                              0x7FFF,
                                              0xFFFF,
                                              0x10000,
                                              0x7FFFFFFF,
                                              0x80000000,
                                              0xFFFFFFFF,
                                              0x7FFFFFFFFFFFFFFF,
                                              0x8000000000000000,
                                              0xFFFFFFFFFFFFFFFF};
constexpr std::array<std::string_view, 12> kDecimals = {"0",
                                                        "-1",
                                                        "1",
                                                        "65536",
                                                        "2147483648",
                                                        "4294967295",
                                                        "4294967296",
                                                        "1e308",
                                                        "9223372036854775807",
                                                        "18446744073709551616",
                                                        "nan",
                                                        "0.5"};

bool IsDigit(char c) {
  return std::isdigit(static_cast<unsigned char>(c)) != 0;
}

}  // namespace

std::string Mutator::Next() {
  std::string input = seeds_[Draw(seeds_.size())];
  const size_t changes = 1 + Draw(kMostChanges);
  for (size_t i = 0; i < changes; ++i) Change(input);
  if (input.size() > max_bytes_) input.resize(max_bytes_);
  return input;
}

void Mutator::Change(std::string& input) {
  const size_t at = Draw(input.size() + 1);
  const size_t count = Draw(std::min(input.size() - at, kMostInserted) + 1);
  switch (Draw(10)) {
    case 0:
      if (at < input.size()) input[at] ^= static_cast<char>(1 << Draw(8));
      return;
    case 1:
      if (at < input.size()) input[at] = static_cast<char>(Draw(256));
      return;
    case 2:
      return WriteInteger(input);
    case 3:
      return WriteDecimal(input);
    case 4:
      input.erase(at, count);
      return;
    case 5:
      input.insert(at, input.substr(at, count));
      return;
    case 6:
      input.insert(at, 1 + Draw(kMostInserted), static_cast<char>(Draw(256)));
      return;
    case 7:
      input.resize(at);
      return;
    case 8: {
      const std::string part = input.substr(at, count);
      const size_t to = Draw(input.size() + 1);
      input.replace(to, part.size(), part);
      return;
    }
    default: {
      const std::string& other = seeds_[Draw(seeds_.size())];
      const size_t begin = Draw(other.size() + 1);
      input.replace(at, count, other, begin, Draw(other.size() - begin + 1));
      return;
    }
  }
}

void Mutator::WriteInteger(std::string& input) {
  const size_t bytes = size_t{1} << Draw(4);
  if (input.size() < bytes) return;
  std::array<char, sizeof(uint64_t)> value{};
  const uint64_t bound = kBounds[Draw(kBounds.size())];
  std::memcpy(value.data(), &bound, sizeof(bound));
  if (Draw(2) == 1) std::reverse(value.begin(), value.begin() + bytes);
  std::memcpy(&input[Draw(input.size() - bytes + 1)], value.data(), bytes);
}

void Mutator::WriteDecimal(std::string& input) {
  size_t begin = Draw(input.size());
  while (begin < input.size() && !IsDigit(input[begin])) ++begin;
  size_t end = begin;
  while (end < input.size() && IsDigit(input[end])) ++end;
  if (begin < end) {
    input.replace(begin, end - begin, kDecimals[Draw(kDecimals.size())]);
  }
}

}  // namespace trireme
