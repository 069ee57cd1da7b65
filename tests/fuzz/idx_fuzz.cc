// A pair of IDX files: a byte says where the second begins.

#include <algorithm>

#include "models/data/idx.h"
#include "tests/fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace trireme;
  static const ScratchFolder folder;
  std::string_view input = TextOf(data, size);
  const size_t wanted = TakeChoice(input, 256);
  const size_t pictures = std::min(wanted, input.size());
  folder.Write("train-images-idx3-ubyte", input.substr(0, pictures));
  folder.Write("train-labels-idx1-ubyte", input.substr(pictures));
  const auto dataset = OpenIdx(folder.path(), "train");
  if (!dataset.ok()) return 0;
  for (int64_t i = 0; i < (*dataset)->size(); ++i) (void)(*dataset)->Read(i);
  return 0;
}
