#include "models/transformer/interleaved_heads.h"

namespace trireme {

void AddInterleavedHeads(const std::string& ours,
                         std::span<const std::string> theirs, int64_t heads,
                         int64_t width, int64_t in, NameTable& table) {
  const auto parts = static_cast<int64_t>(theirs.size());
  const int64_t head = width / heads * in;
  table.DeclareParameter({ours + ".weight", {parts, width, in}});
  for (const std::string& name : theirs) {
    table.DeclareTensor({name + ".weight", {width, in}});
  }
  for (int64_t part = 0; part < parts; ++part) {
    for (int64_t i = 0; i < heads; ++i) {
      const int64_t there = i * parts + part;
      table.AddPiece({.parameter = ours + ".weight",
                      .tensor = theirs[there / heads] + ".weight",
                      .parameter_begin = (part * heads + i) * head,
                      .tensor_begin = there % heads * head,
                      .view = {head},
                      .order = {}});
    }
  }
}

}  // namespace trireme
