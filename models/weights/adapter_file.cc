#include "models/weights/adapter_file.h"

#include <algorithm>
#include <set>
#include <utility>

#include "models/weights/adapter_names.h"
#include "models/weights/module_adapters.h"
#include "models/weights/translated_tensors.h"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// The candidates that the file has.
absl::StatusOr<std::vector<StoredAdapter>> AdaptersIn(
    const std::string& path, const ModuleAdapters& found,
    const NameTable& weights, std::span<const StoredAdapter> candidates) {
  const std::vector<std::vector<std::string>> modules =
      ModulesOf(weights, candidates);
  std::vector<StoredAdapter> adapters;
  for (size_t i = 0; i < candidates.size(); ++i) {
    const auto has = [&](const std::string& module) {
      return found.shapes.contains(InputFactorOf(module));
    };
    const auto present =
        std::find_if(modules[i].begin(), modules[i].end(), has);
    if (present == modules[i].end()) continue;
    const auto missing =
        std::find_if_not(modules[i].begin(), modules[i].end(), has);
    if (missing != modules[i].end()) {
      return FailedPrecondition(
          "{}: found tensor '{}' without '{}', expected both: they are one "
          "layer here",
          path, InputFactorOf(*present), InputFactorOf(*missing));
    }
    adapters.push_back(candidates[i]);
  }
  return adapters;
}

}  // namespace

absl::StatusOr<AdapterFile> OpenAdapterFile(
    const std::string& path, const NameTable& weights,
    std::span<const StoredAdapter> candidates) {
  ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsFile> file,
                   SafetensorsFile::Open(path));
  const absl::StatusOr<ModuleAdapters> found =
      HasKohyaNames(*file) ? ReadKohyaAdapters(*file, weights)
                           : ReadPeftAdapters(*file);
  RETURN_IF_ERROR(found.status());
  AdapterFile result;
  result.rank = found->rank;
  result.alpha = found->alpha;
  result.decomposed = found->decomposed;
  ASSIGN_OR_RETURN(result.adapters,
                   AdaptersIn(path, *found, weights, candidates));
  ASSIGN_OR_RETURN(
      const NameTable table,
      AdapterNames(weights, result.adapters, result.rank, result.decomposed));
  std::set<std::string> known;
  for (const NamedShape& tensor : table.tensors()) {
    known.insert(tensor.name);
    RETURN_IF_ERROR(found->tensors->Check(tensor.name, tensor.shape));
  }
  for (const auto& [name, shape] : found->shapes) {
    if (known.contains(name)) continue;
    return FailedPrecondition(
        "{}: found tensor '{}', which no linear module of {} has", path, name,
        weights.class_name());
  }
  result.parameters = table.parameters();
  result.factors = ParametersOf(table, found->tensors, path);
  return result;
}

absl::StatusOr<int64_t> WriteAdapterFile(const std::string& path,
                                         const NameTable& weights,
                                         const AdapterFile& file,
                                         AdapterNaming naming, DType dtype) {
  ASSIGN_OR_RETURN(
      const NameTable table,
      AdapterNames(weights, file.adapters, file.rank, file.decomposed));
  for (const NamedShape& parameter : table.parameters()) {
    RETURN_IF_ERROR(file.factors->Check(parameter.name, parameter.shape));
  }
  ModuleAdapters adapters = {
      .rank = file.rank, .alpha = file.alpha, .decomposed = file.decomposed};
  for (const NamedShape& tensor : table.tensors()) {
    adapters.shapes[tensor.name] = tensor.shape;
  }
  adapters.tensors = TensorsOf(table, file.factors, nullptr, path);
  return naming == AdapterNaming::kKohya
             ? WriteKohyaAdapters(path, weights, adapters, dtype)
             : WritePeftAdapters(path, adapters, dtype);
}

}  // namespace trireme
