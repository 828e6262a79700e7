"""VOEvents of other observatories, made up: for tests of the cross-match."""

from __future__ import annotations

VOEVENT = """<?xml version="1.0" encoding="UTF-8"?>
<voe:VOEvent xmlns:voe="http://www.ivoa.net/xml/VOEvent/v2.0" version="2.0" role="{role}" ivorn="{ivorn}">
  <Who><AuthorIVORN>ivo://nasa.gsfc.tan/gcn</AuthorIVORN><Date>2017-08-17T12:41:20</Date></Who>
  <What>{params}</What>
  <WhereWhen><ObsDataLocation><ObservatoryLocation id="GEOLUN"/><ObservationLocation>
    <AstroCoordSystem id="UTC-FK5-GEO"/>
    <AstroCoords coord_system_id="UTC-FK5-GEO">
      <Time unit="s"><TimeInstant><ISOTime>2017-08-17T12:41:06.47</ISOTime></TimeInstant></Time>
      <Position2D unit="deg"><Name1>RA</Name1><Name2>Dec</Name2>
        <Value2><C1>176.8</C1><C2>-39.8</C2></Value2><Error2Radius>{radius}</Error2Radius></Position2D>
    </AstroCoords></ObservationLocation></ObsDataLocation></WhereWhen>
  {citations}
</voe:VOEvent>"""


def voevent(
    ivorn: str = "ivo://nasa.gsfc.gcn/Fermi#GBM_524666471_1", role: str = "test", params: str = "",
    radius: float = 11.6, cite: str = "", cited: str = "ivo://nasa.gsfc.gcn/Fermi#GBM_524666471_0",
) -> bytes:  # fmt: skip
    citations = f'<Citations><EventIVORN cite="{cite}">{cited}</EventIVORN></Citations>' if cite else ""
    return VOEVENT.format(ivorn=ivorn, role=role, params=params, radius=radius, citations=citations).encode()
