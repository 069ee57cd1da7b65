// The catalogue within an archive of Sweet Home 3D's furniture (.sh3f):
// PluginFurnitureCatalog.properties, a Java properties file in which model#7,
// name#7 and so on describe the seventh piece.

#ifndef TRIREME_MODELS_SHAPE_FURNITURE_CATALOG_H_
#define TRIREME_MODELS_SHAPE_FURNITURE_CATALOG_H_

#include <string>
#include <string_view>
#include <vector>

namespace trireme {

inline constexpr std::string_view kFurnitureCatalog =
    "PluginFurnitureCatalog.properties";

struct FurniturePiece {
  std::string model;     // the mesh's name in the archive
  std::string name;      // "Bedside table", UTF-8
  std::string category;  // "Bedroom"
  std::string icon;      // a picture's name in the archive; may be empty
};

// The pieces with a model, by number. What is no property is passed over: the
// file is a stranger's.
std::vector<FurniturePiece> ParseFurnitureCatalog(std::string_view text);

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_FURNITURE_CATALOG_H_
