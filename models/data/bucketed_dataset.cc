#include "models/data/bucketed_dataset.h"

#include <string>
#include <utility>

#include "fmt/format.h"
#include "runtime/core/log.h"
#include "runtime/core/philox.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// Samples that are named where they are left out.
constexpr int64_t kNamed = 5;

class BucketedDataset final : public Dataset {
 public:
  BucketedDataset(std::unique_ptr<Dataset> whole, std::vector<int64_t> kept,
                  Buckets buckets)
      : whole_(std::move(whole)),
        kept_(std::move(kept)),
        buckets_(std::move(buckets)) {}

  int64_t size() const override { return static_cast<int64_t>(kept_.size()); }
  int64_t num_classes() const override { return whole_->num_classes(); }
  std::string class_name(int64_t class_id) const override {
    return whole_->class_name(class_id);
  }
  uint64_t IndexHash() const override {
    std::string index = fmt::format("{}\n", whole_->IndexHash());
    for (size_t i = 0; i < kept_.size(); ++i) {
      const PictureSize& size = buckets_.sizes[buckets_.of_sample[i]];
      index += fmt::format("{} {}x{}\n", kept_[i], size.height, size.width);
    }
    return StableHash(index);
  }
  absl::StatusOr<Sample> ReadParts(int64_t index,
                                   const SampleParts& parts) const override {
    CHECK(index >= 0 && index < size()) << index;
    return whole_->ReadParts(kept_[index], parts);
  }
  absl::StatusOr<PictureSize> ReadSize(int64_t index) const override {
    CHECK(index >= 0 && index < size()) << index;
    return whole_->ReadSize(kept_[index]);
  }
  const Buckets* buckets() const override { return &buckets_; }

 private:
  std::unique_ptr<Dataset> whole_;
  std::vector<int64_t> kept_;  // by their index in the whole
  Buckets buckets_;
};

// For messages; "sample 3" where the file cannot even be named.
std::string NameOf(const Dataset& dataset, int64_t index) {
  const auto sample = dataset.ReadParts(index, {});
  return sample.ok() && !sample->key.empty() ? sample->key
                                             : fmt::format("sample {}", index);
}

// How many samples have no bucket, by the reason.
struct Counts {
  int64_t unreadable = 0;
  int64_t smaller = 0;
  std::string first_smaller;
};

absl::Status Check(const Counts& counts, SmallerPictures smaller,
                   int64_t kept) {
  if (counts.smaller > 0 && smaller == SmallerPictures::kRefuse) {
    return InvalidArgument(
        "data.buckets.smaller: found {} pictures that would have to be "
        "enlarged for every size (the first: {}), expected none, or what "
        "becomes of them: LEAVE_OUT or ENLARGE",
        counts.smaller, counts.first_smaller);
  }
  if (counts.smaller > 0) {
    LOG(WARNING) << counts.smaller << " pictures are left out that would "
                 << "have to be enlarged for every size, the first: "
                 << counts.first_smaller;
  }
  if (counts.unreadable > kNamed) {
    LOG(WARNING) << counts.unreadable
                 << " samples could not be read and are left out";
  }
  if (kept > 0) return absl::OkStatus();
  return NotFound(
      "data.buckets: found no sample that has a bucket ({} unreadable, {} "
      "smaller than every size), expected one at least",
      counts.unreadable, counts.smaller);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Dataset>> PutIntoBuckets(
    std::unique_ptr<Dataset> whole, std::vector<PictureSize> sizes,
    SmallerPictures smaller) {
  Buckets buckets;
  buckets.sizes = std::move(sizes);
  buckets.samples.resize(buckets.sizes.size());
  std::vector<int64_t> kept;
  Counts counts;
  const std::vector<absl::StatusOr<PictureSize>> found = whole->ReadSizes();
  for (size_t i = 0; i < found.size(); ++i) {
    const auto index = static_cast<int64_t>(i);
    if (!found[i].ok()) {
      const std::string why = MessageOf(found[i].status());
      buckets.left_out.push_back({NameOf(*whole, index), why});
      if (++counts.unreadable <= kNamed) {
        LOG(WARNING) << "leaving out an unreadable sample: " << why;
      }
      continue;
    }
    const std::optional<int32_t> bucket = BucketOf(
        buckets.sizes, *found[i], smaller == SmallerPictures::kEnlarge);
    if (!bucket.has_value()) {
      const std::string size =
          fmt::format("{}x{}", found[i]->height, found[i]->width);
      buckets.left_out.push_back(
          {NameOf(*whole, index), size + ", smaller than every size"});
      if (counts.smaller++ == 0) {
        counts.first_smaller =
            fmt::format("{} of {}", buckets.left_out.back().name, size);
      }
      continue;
    }
    buckets.samples[*bucket].push_back(static_cast<int64_t>(kept.size()));
    buckets.of_sample.push_back(*bucket);
    kept.push_back(index);
  }
  RETURN_IF_ERROR(Check(counts, smaller, static_cast<int64_t>(kept.size())));
  return std::make_unique<BucketedDataset>(std::move(whole), std::move(kept),
                                           std::move(buckets));
}

SmallerSamples FindSmaller(const Dataset& samples,
                           std::span<const PictureSize> sizes) {
  SmallerSamples smaller;
  // Nothing is kept of them beside the pictures.
  const std::vector<absl::StatusOr<PictureSize>> found =
      samples.Dataset::ReadSizes();
  for (size_t i = 0; i < found.size(); ++i) {
    if (!found[i].ok() ||
        BucketOf(sizes, *found[i], /*enlarge=*/false).has_value()) {
      continue;
    }
    if (smaller.count++ == 0) {
      smaller.first =
          fmt::format("{} of {}x{}", NameOf(samples, static_cast<int64_t>(i)),
                      found[i]->height, found[i]->width);
    }
  }
  return smaller;
}

}  // namespace trireme
