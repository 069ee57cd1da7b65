#include "runtime/comm/hang_report.h"

#include <exception>

#include "nlohmann/json.hpp"

namespace trireme {
namespace {

using Json = nlohmann::json;

Json Encode(const CommunicationOperation& operation) {
  return {{"text", operation.text},   {"communicator", operation.communicator},
          {"bytes", operation.bytes}, {"sequence", operation.sequence},
          {"peer", operation.peer},   {"tag", operation.tag},
          {"sends", operation.sends}};
}

CommunicationOperation DecodeOperation(const Json& json) {
  CommunicationOperation operation;
  json.at("text").get_to(operation.text);
  json.at("communicator").get_to(operation.communicator);
  json.at("bytes").get_to(operation.bytes);
  json.at("sequence").get_to(operation.sequence);
  json.at("peer").get_to(operation.peer);
  json.at("tag").get_to(operation.tag);
  json.at("sends").get_to(operation.sends);
  return operation;
}

HangReport Decode(const Json& json) {
  HangReport report;
  json.at("rank").get_to(report.rank);
  for (const Json& item : json.at("communicators")) {
    HangReport::Communicator& communicator =
        report.communicators.emplace_back();
    item.at("name").get_to(communicator.name);
    item.at("ranks").get_to(communicator.ranks);
    item.at("occurrence").get_to(communicator.occurrence);
    item.at("collectives_started").get_to(communicator.collectives_started);
  }
  for (const Json& item : json.at("waits")) {
    report.waits.push_back({DecodeOperation(item.at("operation")),
                            item.at("seconds").get<double>()});
  }
  for (const Json& item : json.at("recent")) {
    report.recent.push_back(DecodeOperation(item));
  }
  if (json.contains("last")) report.last = DecodeOperation(json.at("last"));
  json.at("activity").get_to(report.activity);
  json.at("activity_seconds").get_to(report.activity_seconds);
  json.at("finished").get_to(report.finished);
  json.at("failure").get_to(report.failure);
  return report;
}

}  // namespace

std::string EncodeHangReport(const HangReport& report) {
  Json json = {{"rank", report.rank},
               {"communicators", Json::array()},
               {"waits", Json::array()},
               {"recent", Json::array()},
               {"activity", report.activity},
               {"activity_seconds", report.activity_seconds},
               {"finished", report.finished},
               {"failure", report.failure}};
  for (const HangReport::Communicator& communicator : report.communicators) {
    json["communicators"].push_back(
        {{"name", communicator.name},
         {"ranks", communicator.ranks},
         {"occurrence", communicator.occurrence},
         {"collectives_started", communicator.collectives_started}});
  }
  for (const HangReport::Wait& wait : report.waits) {
    json["waits"].push_back(
        {{"operation", Encode(wait.operation)}, {"seconds", wait.seconds}});
  }
  for (const CommunicationOperation& operation : report.recent) {
    json["recent"].push_back(Encode(operation));
  }
  if (report.last.has_value()) json["last"] = Encode(*report.last);
  // Names may hold any bytes; a report must not fail for one.
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::optional<HangReport> DecodeHangReport(std::string_view message) {
  try {
    return Decode(Json::parse(message));
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

}  // namespace trireme
