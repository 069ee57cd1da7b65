// Inputs made of others, by a seed: the same on every machine.

#ifndef TRIREME_TESTS_FUZZ_MUTATOR_H_
#define TRIREME_TESTS_FUZZ_MUTATOR_H_

#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace trireme {

class Mutator {
 public:
  // `seeds`: at least one, none longer than max_bytes.
  Mutator(std::vector<std::string> seeds, uint64_t seed, size_t max_bytes)
      : seeds_(std::move(seeds)), random_(seed), max_bytes_(max_bytes) {}

  // One of the seeds with one to eight changes: bits, bytes, integers of all
  // sizes and in both byte orders with values at bounds, decimal numbers, parts
  // taken out, doubled, exchanged, or taken from another seed.
  std::string Next();

  // One more to change, as those that it began with.
  void Add(std::string input) { seeds_.push_back(std::move(input)); }

 private:
  // Below `bound`; 0 where that is.
  size_t Draw(size_t bound) {
    return bound == 0 ? 0 : static_cast<size_t>(random_() % bound);
  }
  void Change(std::string& input);
  void WriteInteger(std::string& input);
  void WriteDecimal(std::string& input);

  std::vector<std::string> seeds_;
  std::mt19937_64 random_;
  const size_t max_bytes_;
};

}  // namespace trireme

#endif  // TRIREME_TESTS_FUZZ_MUTATOR_H_
