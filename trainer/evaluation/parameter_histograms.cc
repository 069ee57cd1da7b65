#include "trainer/evaluation/parameter_histograms.h"

#include <algorithm>
#include <cstdint>

#include "nlohmann/json.hpp"
#include "parallel/sharding/stored_tensors.h"
#include "runtime/core/log.h"
#include "runtime/device/host.h"
#include "trainer/evaluation/value_counts.h"

namespace trireme {
namespace {

using Json = nlohmann::json;

// Fetched at once from a device.
constexpr int64_t kMostElements = 1 << 20;

void AddTo(const Tensor& tensor, ValueCounts& counts) {
  const Tensor flat = tensor.Reshape({tensor.num_elements()});
  for (int64_t at = 0; at < flat.num_elements(); at += kMostElements) {
    const Tensor piece =
        flat.Slice(at, std::min(at + kMostElements, flat.num_elements()));
    if (piece.dtype() == DType::kFloat64) {
      counts.Add(Download<double>(piece));
    } else {
      CHECK(piece.dtype() == DType::kFloat32) << piece.dtype();
      counts.Add(Download<float>(piece));
    }
  }
}

// {name: [[bin, count], ..]} of what this rank writes of checkpoints.
std::string OwnCounts(RankModel& model) {
  std::map<std::string, ValueCounts> counts;
  for (const TensorPart& part :
       WrittenParts(model.grid(), model.MasterParts())) {
    AddTo(part.local, counts[part.name]);
  }
  Json own = Json::object();
  for (const auto& [name, of_name] : counts) {
    own[name] = Json::array();
    for (const auto& [bin, count] : of_name.NotEmpty()) {
      own[name].push_back({bin, count});
    }
  }
  return own.dump();
}

}  // namespace

std::map<std::string, std::vector<HistogramBin>> ParameterHistograms(
    RankModel& model) {
  std::map<std::string, std::vector<HistogramBin>> histograms;
  if (model.drive() != nullptr) return histograms;
  std::map<std::string, ValueCounts> counts;
  for (const std::string& text :
       model.context().communicators().control().Gather(
           OwnCounts(model), "histograms of parameters")) {
    const Json of_rank = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    CHECK(of_rank.is_object()) << "a rank sent broken histograms";
    for (const auto& [name, bins] : of_rank.items()) {
      for (const Json& bin : bins) {
        counts[name].Add(bin[0].get<int>(), bin[1].get<int64_t>());
      }
    }
  }
  for (const auto& [name, of_name] : counts) {
    histograms[name] = of_name.Bins();
  }
  return histograms;
}

}  // namespace trireme
