// Zip archives.

#include "models/shape/zip_reader.h"
#include "tests/fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace trireme;
  static const ScratchFolder folder;
  const std::string path = folder.Write("shapes.zip", TextOf(data, size));
  const auto names = ListZip(path);
  if (!names.ok()) return 0;
  for (const std::string& name : *names) {
    (void)ReadZipMember(path, name, /*max_bytes=*/1 << 16);
  }
  return 0;
}
