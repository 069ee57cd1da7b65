// Heads as TripoSG's files have them: its classes take the rows of the products
// (queries, keys, values), one product after the other, for the heads one after
// the other, each with its queries, keys and values.

#ifndef TRIREME_MODELS_TRANSFORMER_INTERLEAVED_HEADS_H_
#define TRIREME_MODELS_TRANSFORMER_INTERLEAVED_HEADS_H_

#include <cstdint>
#include <span>
#include <string>

#include "models/weights/name_table.h"

namespace trireme {

// Our `ours`.weight [parts, width, in] holds part after part, each head by head
// of `heads`; theirs are the tensors NAME.weight [width, in], one a part.
void AddInterleavedHeads(const std::string& ours,
                         std::span<const std::string> theirs, int64_t heads,
                         int64_t width, int64_t in, NameTable& table);

}  // namespace trireme

#endif  // TRIREME_MODELS_TRANSFORMER_INTERLEAVED_HEADS_H_
