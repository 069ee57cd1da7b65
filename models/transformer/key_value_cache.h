// What the blocks of a causal transformer keep of the tokens of sequences that
// are drawn one token after another: their keys and values, so that a token is
// computed once.

#ifndef TRIREME_MODELS_TRANSFORMER_KEY_VALUE_CACHE_H_
#define TRIREME_MODELS_TRANSFORMER_KEY_VALUE_CACHE_H_

#include <cstdint>
#include <map>

#include "runtime/core/log.h"
#include "runtime/device/tensor.h"
#include "runtime/ops/copy.h"

namespace trireme {

class KeyValueCache {
 public:
  // Of sequences of at most so many tokens.
  explicit KeyValueCache(int64_t capacity) : capacity_(capacity) {}

  // The place of the token that blocks compute now, counted from 0.
  int64_t position() const { return position_; }
  // Once all of them have.
  void Advance() { ++position_; }

  // Keeps key_value[b, 1, w] of that token for `block`, and returns those of
  // all tokens [b, capacity, w], zeros behind it.
  const Tensor& Store(int64_t block, const Tensor& key_value) {
    CHECK_LT(position_, capacity_);
    Tensor& all = of_blocks_[block];
    if (!all.defined()) {
      all = Tensor::Zeros(
          key_value.device(), {key_value.dim(0), capacity_, key_value.dim(2)},
          key_value.dtype(), MemoryCategory::kActivations, "keys and values");
    }
    WriteSlice(key_value, 1, position_, all);
    return all;
  }

 private:
  int64_t capacity_;
  int64_t position_ = 0;
  std::map<int64_t, Tensor> of_blocks_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_TRANSFORMER_KEY_VALUE_CACHE_H_
