#include "trainer/run/bucket_list.h"

#include <algorithm>
#include <string>

#include "fmt/format.h"
#include "runtime/core/file.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr size_t kPieceBytes = 1 << 20;

std::string InOneField(std::string text) {
  std::replace_if(
      text.begin(), text.end(),
      [](char c) { return c == '\n' || c == '\r' || c == '\t'; }, ' ');
  return text;
}

}  // namespace

absl::Status WriteBucketList(const RunFolder& folder, const Dataset& dataset) {
  const Buckets* const buckets = dataset.buckets();
  if (buckets == nullptr) return absl::OkStatus();
  ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(folder.buckets()));
  std::string text;
  for (int64_t i = 0; i < dataset.size(); ++i) {
    const PictureSize& size = buckets->sizes[buckets->of_sample[i]];
    const absl::StatusOr<Sample> sample = dataset.ReadParts(i, {});
    text += fmt::format("{}x{}\t{}\n", size.height, size.width,
                        sample.ok() && !sample->key.empty()
                            ? InOneField(sample->key)
                            : fmt::format("sample {}", i));
    if (text.size() < kPieceBytes) continue;
    RETURN_IF_ERROR(file.Append(text));
    text.clear();
  }
  for (const Buckets::LeftOut& left_out : buckets->left_out) {
    text += fmt::format("left out\t{}\t{}\n", InOneField(left_out.name),
                        InOneField(left_out.why));
  }
  RETURN_IF_ERROR(file.Append(text));
  return file.Commit();
}

}  // namespace trireme
