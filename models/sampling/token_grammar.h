// Which sequences of tokens are something: what may come next in one that is
// drawn token by token.

#ifndef TRIREME_MODELS_SAMPLING_TOKEN_GRAMMAR_H_
#define TRIREME_MODELS_SAMPLING_TOKEN_GRAMMAR_H_

#include <cstdint>
#include <span>
#include <vector>

namespace trireme {

// Tokens [begin, end).
struct TokenInterval {
  int32_t begin = 0;
  int32_t end = 0;
};

// Immutable; any thread.
class TokenGrammar {
 public:
  virtual ~TokenGrammar() = default;

  // Tokens are 0 to vocabulary() − 1.
  virtual int64_t vocabulary() const = 0;
  // Ends a sequence.
  virtual int32_t end() const = 0;
  // What may follow `sequence`, which this has allowed token by token, so that
  // it can still end within `left` tokens more: one at least, in ascending
  // intervals.
  virtual std::vector<TokenInterval> Next(std::span<const int32_t> sequence,
                                          int64_t left) const = 0;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_SAMPLING_TOKEN_GRAMMAR_H_
